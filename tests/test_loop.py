"""The loop, with a backend that answers in any order it is told to and remembers what it was asked."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.chat import Chat
from bench.config import RunConfig, Section, build, read_config
from bench.context import Context, derive_seed
from bench.data.corpus import Corpus
from bench.errors import BackendError, DataError, PluginError, StoreError
from bench.execute import execute
from bench.job import Job
from bench.loop import AHEAD, Loop, dry_run, replay
from bench.metrics.bleu import Bleu
from bench.protocols import Method, Properties, Steps
from bench.records import Call, Completion, Instance, Prompt
from bench.resolved import Inputs, Run
from bench.results import Prediction, ScoreRow, rows_of
from bench.store import RunStore, read_generations

MODEL = Properties(retrieval_augmented=False, embedded=False, inter_user=False)
NO_MODEL = Properties(retrieval_augmented=False, embedded=False, inter_user=False, calls_model=False)


def prompt(stage: str, text: str) -> Prompt:
    return Prompt(stage, "be brief", text, blocks_shown=1, blocks_offered=2)


@dataclass
class Two:
    """Two calls, the second quotes the first one's answer; counts the instances begun and not yet done."""

    properties: ClassVar[Properties] = MODEL

    def __post_init__(self) -> None:
        self.begun = self.most = 0

    def steps(self, instance: Instance, context: Context) -> Steps:
        self.begun += 1
        self.most = max(self.most, self.begun)
        (summary,) = yield [prompt("first", f"sum up {instance.user_id}")]
        (review,) = yield [prompt("second", f"write like {summary}")]
        self.begun -= 1
        return f" {review}\n"


@dataclass
class Fan:
    """Eight calls side by side, then two more of the same stage."""

    properties: ClassVar[Properties] = MODEL

    def steps(self, instance: Instance, context: Context) -> Steps:
        eight = yield [prompt("part", f"{instance.user_id} part {number}") for number in range(8)]
        two = yield [prompt("part", f"{instance.user_id} more {number}") for number in range(2)]
        return " ".join([*eight, *two])


@dataclass
class Silent:
    properties: ClassVar[Properties] = NO_MODEL

    def steps(self, instance: Instance, context: Context) -> Steps:
        yield from ()
        return f"like {instance.user_id}"


class Script:
    """A backend. `order` picks the open call that is answered next; `batch` are answered at a time; the call number
    `fails_at` fails."""

    def __init__(self, order: Callable[[int], int] = lambda n: 0, batch: int = 1, fails_at: int | None = None) -> None:
        self.order = order
        self.batch = batch
        self.fails_at = fails_at
        self.submitted: list[Call] = []
        self.log: list[tuple[str, str, str]] = []
        self.most_open = 0
        self.closed = False
        self._open: list[Call] = []

    def submit(self, call: Call) -> None:
        self._open.append(call)
        self.submitted.append(call)
        self.log.append(("sent", call.key[0], call.prompt.stage))
        self.most_open = max(self.most_open, len(self._open))

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        for _ in range(min(self.batch, len(self._open))):
            if self.fails_at == len(self.submitted) - len(self._open):
                raise BackendError("the server is gone")
            call = self._open.pop(self.order(len(self._open)))
            self.log.append(("done", call.key[0], call.prompt.stage))
            yield call, Completion(f" <{call.prompt.user}|{call.seed}> ", 3, 2, "stop", 0.5)

    def close(self) -> None:
        self.closed = True

    @property
    def keys(self) -> list[tuple[str, str, int]]:
        return [call.key for call in self.submitted]


ORDERS: dict[str, Callable[[int], int]] = {
    "first": lambda n: 0,
    "last": lambda n: n - 1,
    "random": random.Random(3).randrange,
}


def corpus(category: str, users: int) -> Corpus:
    given = {"item_title": "Red Kite", "item_description": "Of red cloth.", "output_rating": 5.0, "output_title": "Up"}
    instances = tuple(
        Instance(f"{category}/test/u{number}", category, "test", f"u{number}", given, (), "A1", 400)
        for number in range(users)
    )
    references = {instance.id: f"the kite of {instance.user_id} flies" for instance in instances}
    return Corpus(category, {"test": instances}, references)


MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Jobs of a test's own method on 6 + 4 instances, or `users` of each category."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")

    def make(method: Method, users: tuple[int, ...] = (6, 4), **settings: Any) -> Job:
        corpora = {name: corpus(name, count) for name, count in zip(("Books", "Music"), users, strict=False)}
        base = {
            "model": str(model),
            "metrics": ["rouge", "bleu"],
            "resamples": 20,
            "results": str(tmp_path / "results"),
            "backend": "openai",
        }
        run = Run(build(base, {"method": "nonperso"}, settings), Inputs(corpora))
        run.method = method
        return Job(run, None)

    return make


def predict(job: Job, backend: Script | None) -> list[Prediction]:
    def engine() -> Script:
        assert backend is not None, "no engine is needed here"
        return backend

    with RunStore(job.folder, job.record()) as store:
        return Loop(job.run, store, engine, None, job.label).predictions()  # type: ignore[arg-type]


def test_predictions_by_hand(make_job: MakeJob) -> None:
    job = make_job(Two(), users=(1,), seed=5)
    name = "Books/test/u0"
    seeds = [derive_seed(5, name, "first", 0), derive_seed(5, name, "second", 0)]
    assert predict(job, Script()) == [
        Prediction(
            instance=name,
            category="Books",
            user="u0",
            prediction=f"<write like <sum up u0|{seeds[0]}>|{seeds[1]}>",
            reference="the kite of u0 flies",
            blocks_shown=1,
            blocks_offered=2,
            calls=2,
            prompt_tokens=6,
            completion_tokens=4,
            cut_off=False,
            counts={},
        )
    ]


@pytest.mark.parametrize("method", [Two(), Fan()])
@pytest.mark.parametrize("window", [1, 3, 7, 512])
@pytest.mark.parametrize("batch", [1, 5])
def test_no_more_than_a_window_is_in_flight(make_job: MakeJob, method: Method, window: int, batch: int) -> None:
    job = make_job(method, window=window)
    backend = Script(ORDERS["random"], batch)
    predict(job, backend)
    asked = 20 if isinstance(method, Two) else 100
    first_round = 10 if isinstance(method, Two) else 80
    assert len(backend.submitted) == asked
    assert backend.most_open == min(window, first_round), "the window is used in full and never overrun"


def test_instances_begun_are_few(make_job: MakeJob) -> None:
    method = Two()
    job = make_job(method, users=(200,), window=5)
    job.check()
    method.begun = method.most = 0
    predict(job, Script(ORDERS["random"], 3))
    assert method.most <= 2 * 5 + AHEAD + 1


def test_a_backend_that_works_in_turns_gets_some_calls_a_turn(make_job: MakeJob) -> None:
    class Turns(Script):
        a_turn = 16

        def completed(self) -> Iterator[tuple[Call, Completion]]:
            self.log.append(("turn", "", ""))
            # Nothing is ready at first.
            yield from super().completed() if self.log.count(("turn", "", "")) > 3 else ()

    backend = Turns()
    predict(make_job(Fan(), users=(60,), window=100), backend)
    assert backend.most_open == 100
    sent = [turn.count("s") for turn in "".join(event[0][0] for event in backend.log).split("t")]
    assert sent[:4] == [16, 16, 16, 16]
    assert max(sent) == 16


@dataclass
class Slow(Two):
    """Takes its time now and then."""

    def steps(self, instance: Instance, context: Context) -> Steps:
        steps = super().steps(instance, context)
        prompts = next(steps)
        while True:
            time.sleep(random.choice([0, 0, 0.003]))
            try:
                prompts = steps.send((yield prompts))
            except StopIteration as stop:
                return str(stop.value)


@pytest.mark.parametrize("window", [4, 512])
def test_what_the_backend_is_given_hangs_on_no_clock(make_job: MakeJob, tmp_path: Path, window: int) -> None:
    orders = []
    for number, method in enumerate([Two(), Slow(), Slow()]):
        backend = Script(ORDERS["last"], batch=3)
        job = make_job(method, users=(40, 40), window=window, results=str(tmp_path / f"results{number}"))
        predict(job, backend)
        orders.append(backend.log)
    assert orders[0] == orders[1] == orders[2]


def test_prompts_are_made_while_the_backend_works(make_job: MakeJob) -> None:
    """The backend answers its first call only when the last instance was begun."""
    method = Two()

    class Waiting(Script):
        def completed(self) -> Iterator[tuple[Call, Completion]]:
            until = time.monotonic() + 20
            while method.most < 10:
                assert time.monotonic() < until, "nothing was made ahead"
                time.sleep(0.001)
            yield from super().completed()

    job = make_job(method, window=1)
    method.begun = 0
    assert len(predict(job, Waiting())) == 10


def test_a_backend_may_have_no_answer_yet(make_job: MakeJob) -> None:
    class Late(Script):
        def completed(self) -> Iterator[tuple[Call, Completion]]:
            yield from super().completed() if random.random() < 0.3 else ()

    assert len(predict(make_job(Two()), Late())) == 10


def test_an_error_ahead_is_raised_when_its_instance_is_next(make_job: MakeJob) -> None:
    @dataclass
    class BreaksAtOnce(Two):
        def steps(self, instance: Instance, context: Context) -> Steps:
            if instance.id == "Music/test/u3":
                raise ZeroDivisionError("a bug of the method's own")
            return super().steps(instance, context)

    job = make_job(BreaksAtOnce(), window=1)
    backend = Script()
    with pytest.raises(ZeroDivisionError):
        predict(job, backend)
    assert len(backend.submitted) == len(read_generations(job.folder)) == 18, "all of the nine before it"


def test_there_is_no_barrier_between_stages(make_job: MakeJob) -> None:
    backend = Script(ORDERS["last"])
    predict(make_job(Two(), window=4), backend)
    last_first_answer = max(place for place, event in enumerate(backend.log) if event[0::2] == ("done", "first"))
    first_second_call = backend.log.index(next(event for event in backend.log if event[0::2] == ("sent", "second")))
    assert first_second_call < last_first_answer
    # The call that was sent first is answered last of all its stage: nobody waited for it.
    assert backend.log[last_first_answer][1] == backend.log[0][1]


@pytest.mark.parametrize("method", [Two(), Fan()])
def test_the_order_of_answers_changes_nothing(make_job: MakeJob, tmp_path: Path, method: Method) -> None:
    results = []
    for number, (order, batch, window) in enumerate([("first", 1, 512), ("last", 4, 3), ("random", 7, 5)]):
        job = make_job(method, window=window, results=str(tmp_path / f"results{number}"))
        results.append(predict(job, Script(ORDERS[order], batch)))
    assert results[0] == results[1] == results[2]
    assert [row.instance for row in results[0]] == [instance.id for instance in job.run.instances]


def test_seeds_depend_on_names_alone(make_job: MakeJob, tmp_path: Path) -> None:
    def seeds(number: int, **settings: Any) -> dict[tuple[str, str, int], int]:
        backend = Script(ORDERS["random"])
        predict(make_job(Fan(), results=str(tmp_path / f"results{number}"), **settings), backend)
        return {call.key: call.seed for call in backend.submitted}

    whole = seeds(0)
    assert len(set(whole.values())) == len(whole) == 100
    assert whole == {key: derive_seed(0, *key) for key in whole}
    assert all(0 <= seed < 2**32 for seed in whole.values())
    part = seeds(1, limit=2, window=3)
    assert part == {key: whole[key] for key in part}
    assert len(part) == 40
    assert not set(seeds(2, seed=1).values()) & set(whole.values())


def test_prompts_side_by_side_get_their_own_answers_in_order(make_job: MakeJob) -> None:
    backend = Script(ORDERS["last"])
    (row,) = predict(make_job(Fan(), users=(1,)), backend)
    assert [text.split("|")[0] for text in row.prediction.split("> <")] == [
        *(f"{'<' if number == 0 else ''}u0 part {number}" for number in range(8)),
        *(f"u0 more {number}" for number in range(2)),
    ]
    assert backend.keys == [("Books/test/u0", "part", index) for index in range(10)]
    assert row.calls == 10


def test_stored_answers_are_not_asked_again(make_job: MakeJob) -> None:
    job = make_job(Two())
    whole = predict(job, Script())
    path = job.folder / "generations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 20
    kept = [line for number, line in enumerate(lines) if number % 3]
    path.write_text("".join(kept))
    missing = {(row["instance"], row["stage"], row["index"]) for row in map(json.loads, lines[::3])}
    backend = Script(ORDERS["random"])
    assert predict(job, backend) == whole
    assert set(backend.keys) == missing
    assert len(backend.keys) == len(missing)
    assert path.read_text().startswith("".join(kept))
    assert predict(job, None) == whole, "a complete run asks for no engine"


def test_a_stored_answer_to_another_prompt_is_not_taken(make_job: MakeJob) -> None:
    job = make_job(Two(), users=(2,))
    predict(job, Script())
    path = job.folder / "generations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["prompt"] = "0" * 64
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    backend = Script()
    predict(job, backend)
    assert backend.keys == [(rows[0]["instance"], rows[0]["stage"], 0)]


def test_a_method_without_calls_needs_no_engine(make_job: MakeJob) -> None:
    job = make_job(Silent())
    job.check()
    rows = predict(job, None)
    assert [row.prediction for row in rows] == [f"like {instance.user_id}" for instance in job.run.instances]
    assert {row.calls for row in rows} == {0}
    assert read_generations(job.folder) == {}


@dataclass
class Bad:
    """Does as it is told to."""

    properties: ClassVar[Properties] = MODEL

    def steps(self, instance: Instance, context: Context) -> Steps:
        result: Steps = vars(self)["told"]()
        return result


def bad(told: Callable[[], Any]) -> Bad:
    method = Bad()
    vars(method)["told"] = told
    return method


def _yields(value: Any, result: Any = "text") -> Callable[[], Any]:
    def steps() -> Any:
        yield value
        return result

    return steps


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (_yields([]), "yielded no prompts; return the text instead"),
        (_yields(prompt("a", "b")), "must yield a list of prompts, it yielded Prompt"),
        (_yields("text"), "must yield a list of prompts, it yielded str"),
        (_yields(None), "must yield a list of prompts, it yielded NoneType"),
        (_yields([prompt("a", "b")], None), "must return a text, it returned NoneType"),
        (_yields([prompt("a", "b")], ["text"]), "must return a text, it returned list"),
        (lambda: "text", "must be a generator"),
        (lambda: ["text"], "must be a generator"),
    ],
)
def test_a_method_that_breaks_its_protocol_is_told(make_job: MakeJob, steps: Any, message: str) -> None:
    job = make_job(bad(steps))
    with pytest.raises(PluginError, match=f"method nonperso .*{message}|{message}"):
        predict(job, Script())


@dataclass
class Breaks:
    """Fails at its second stage for one user, until it is mended."""

    properties: ClassVar[Properties] = MODEL

    def __post_init__(self) -> None:
        self.broken = True

    def steps(self, instance: Instance, context: Context) -> Steps:
        (summary,) = yield [prompt("first", f"sum up {instance.user_id}")]
        if self.broken and instance.id == "Books/test/u3":
            raise ZeroDivisionError("a bug of the method's own")
        (review,) = yield [prompt("second", f"write like {summary}")]
        return review


def test_an_exception_in_a_method_keeps_what_was_finished(make_job: MakeJob) -> None:
    method = Breaks()
    job = make_job(method, window=2)
    broken = Script()
    with pytest.raises(ZeroDivisionError):
        predict(job, broken)
    finished = read_generations(job.folder)
    assert ("Books/test/u0", "second", 0) in finished
    assert ("Books/test/u3", "first", 0) in finished
    method.broken = False
    mended = Script()
    assert len(predict(job, mended)) == 10
    assert not set(mended.keys) & set(finished)
    assert len(mended.keys) + len(finished) == 20


def test_a_failing_backend_keeps_what_was_finished(make_job: MakeJob) -> None:
    job = make_job(Two(), window=4)
    with pytest.raises(BackendError, match="the server is gone"):
        predict(job, Script(batch=3, fails_at=7))
    assert len(read_generations(job.folder)) == 7
    backend = Script()
    assert len(predict(job, backend)) == 10
    assert len(backend.keys) == 13


@pytest.fixture
def starts(register: Callable[[str, str, type], None]) -> list[Script]:
    """The engines that get started: a backend "script" of another package answers in the place of a real one."""
    started: list[Script] = []

    class ScriptBackend(Script):
        settings: ClassVar[type[Section]] = Section
        takes_vectors: ClassVar[bool] = False
        applies_template: ClassVar[bool] = True
        timing: ClassVar[dict[str, object]] = {}

        def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
            super().__init__()
            started.append(self)

        @classmethod
        def check(cls, config: RunConfig) -> None:
            """It needs nothing."""

        @classmethod
        def device(cls) -> str:
            return "paper"

    register("backends", "script", ScriptBackend)
    return started


@pytest.fixture
def script_job(make_job: MakeJob, starts: list[Script]) -> MakeJob:
    """Jobs whose engines are in `starts`."""
    return partial(make_job, backend="script")


def test_one_engine_serves_all_runs_that_want_it(script_job: MakeJob, starts: list[Script]) -> None:
    jobs = [script_job(Two()), script_job(Fan(), seed=1), script_job(Silent(), seed=2, temperature=0.1)]
    execute(jobs)
    assert len(starts) == 1
    assert len(starts[0].submitted) == 120
    assert starts[0].closed
    execute([script_job(Two(), seed=3, max_new_tokens=8), script_job(Two(), seed=4, max_new_tokens=9)])
    assert len(starts) == 3
    assert all(engine.closed for engine in starts)


def test_a_complete_run_is_read_and_nothing_is_done(script_job: MakeJob, starts: list[Script]) -> None:
    said: list[str] = []
    job = script_job(Two())
    (first,) = execute([job], said.append)
    assert re.fullmatch(
        r"nonperso: 10 instances, 20 calls in 0 s \(rendering 0\.\d s, engine 0\.\d s, idle 0\.\d s\)", said[0]
    )
    assert said[1:] == ["scoring 10 texts with rouge", "scoring 10 texts with bleu"]
    assert set(first.seconds) == {"rendering", "engine", "idle"}
    assert all(seconds > 0 for seconds in first.seconds.values())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in job.folder.iterdir()}
    said.clear()
    (second,) = execute([script_job(Two())], said.append)
    assert second == first
    assert said == []
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in job.folder.iterdir()} == before
    assert len(starts) == 1


def test_the_summary_counts(script_job: MakeJob, starts: list[Script]) -> None:
    (summary,) = execute([script_job(Two(), seed=9)])
    expected = {
        "schema_version": 3,
        "instances": {"Books": 6, "Music": 4},
        "empty_predictions": 0,
        "cut_off": 0,
        "calls": 20,
        "prompt_tokens": 60,
        "completion_tokens": 40,
        "blocks_shown": 1.0,
        "blocks_offered": 2.0,
        "resamples": 20,
    }
    assert {name: getattr(summary, name) for name in expected} == expected
    assert list(summary.scores) == ["Books", "Music"]
    assert list(summary.scores["Books"]) == ["rouge1", "rougeL", "bleu"]


@dataclass
class Terse(Silent):
    """Says nothing for some users."""

    def steps(self, instance: Instance, context: Context) -> Steps:
        yield from ()
        return "the kite flies" if instance.user_id in ("u0", "u1") else "  \n"


def test_empty_predictions_are_counted_and_score_nothing(make_job: MakeJob) -> None:
    (summary,) = execute([make_job(Terse(), users=(4,))])
    assert summary.empty_predictions == 2
    # "the kite flies" against "the kite of u0 flies": precision 3/3, recall 3/5, F 0.75; two of four are empty.
    assert summary.scores["Books"]["rouge1"].value == pytest.approx(0.375)


def test_other_metrics_are_scored_without_an_engine(script_job: MakeJob, starts: list[Script]) -> None:
    (one,) = execute([script_job(Two(), metrics=["rouge"])])
    (two,) = execute([script_job(Two(), metrics=["rouge", "bleu"])])
    (more,) = execute([script_job(Two(), resamples=40)])
    assert len(starts) == 1
    assert one.scores["Books"]["rouge1"] == two.scores["Books"]["rouge1"]
    assert more.resamples == 40
    rows = list(rows_of(ScoreRow, script_job(Two()).folder / "scores.jsonl"))
    assert Counter(row.metric for row in rows) == {"rouge": 10, "bleu": 10}


def test_who_asks_for_fewer_metrics_loses_none(
    script_job: MakeJob, starts: list[Script], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (both,) = execute([script_job(Two(), metrics=["rouge", "bleu"])])
    summary = script_job(Two()).folder / "summary.json"
    written = summary.read_bytes()
    assert execute([script_job(Two(), metrics=["bleu"])]) == [both]
    assert summary.read_bytes() == written
    # Others come to them, and what has to be aggregated anew is.
    (three,) = execute([script_job(Two(), metrics=["length"], resamples=40)])
    assert list(three.signatures) == ["length", "rouge", "bleu"]
    assert three.scores["Books"]["bleu"].value == both.scores["Books"]["bleu"].value
    assert "no longer scored" not in capsys.readouterr().err
    # What was made otherwise, or cannot be made again, goes, and that is said.
    monkeypatch.setattr(Bleu, "signature", lambda metric: "another")
    (fewer,) = execute([script_job(Two(), metrics=["length"], rouge={"average": "bootstrap_median"})])
    assert list(fewer.signatures) == ["length", "rouge"]
    assert "no longer scored with bleu" in capsys.readouterr().err
    summary.with_name("scores.jsonl").unlink()
    (last,) = execute([script_job(Two(), metrics=["length"])])
    assert list(last.signatures) == ["length"]
    assert "no longer scored with rouge" in capsys.readouterr().err
    assert len(starts) == 1


def test_a_summary_of_another_schema_is_not_believed(
    script_job: MakeJob, starts: list[Script], rewrite: Callable[..., None]
) -> None:
    job = script_job(Two())
    execute([job])
    for name in ("run.json", "summary.json"):
        rewrite(job.folder / name, lambda content: content.update(schema=0))
    with pytest.raises(StoreError, match="written by schema 0"):
        execute([script_job(Two())])
    assert len(starts) == 1


def test_a_folder_in_the_summarys_place_is_put_aside(script_job: MakeJob, starts: list[Script]) -> None:
    job = script_job(Two())
    (job.folder / "summary.json" / "in the way").mkdir(parents=True)
    execute([job])
    assert (job.folder / "summary.json.damaged" / "in the way").is_dir()
    assert sum(len(engine.submitted) for engine in starts) == 20


def test_everything_is_checked_before_the_first_engine(script_job: MakeJob, starts: list[Script]) -> None:
    with pytest.raises(PluginError, match="yielded no prompts"):
        execute([script_job(Two()), script_job(bad(_yields([])), seed=1)])
    assert starts == []


def test_a_category_without_instances_is_no_obstacle(make_job: MakeJob) -> None:
    (summary,) = execute([make_job(Silent(), users=(0, 3))])
    assert summary.instances == {"Music": 3}
    with pytest.raises(DataError, match="has no test instances"):
        make_job(Silent(), users=(0, 0))


def test_replay_gives_the_prompts_with_their_answers(make_job: MakeJob) -> None:
    job = make_job(Two())
    rows = predict(job, Script())
    work = replay(job.run, job.run.instances[2], read_generations(job.folder))
    assert [prompt.stage for prompt in work.prompts] == ["first", "second"]
    assert work.prompts[1].user == f"write like {work.exchanged[0][1].text.strip()}"
    assert work.prediction == rows[2].prediction
    stored = read_generations(job.folder)
    del stored[job.run.instances[2].id, "second", 0]
    work = replay(job.run, job.run.instances[2], stored)
    assert [prompt.stage for prompt, _ in work.exchanged] == ["first"]
    assert work.prediction is None


def test_a_dry_run_counts_every_call(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chat, "count", lambda self, prompt: len(prompt.user))
    stages = dry_run(make_job(Two(), users=(3,), window=2).run)
    assert {name: (stage.calls, stage.prompt_tokens) for name, stage in stages.items()} == {
        "first": (3, 3 * len("sum up u0")),
        "second": (3, 3 * len("write like (the answer to first)")),
    }
    assert stages["first"].first.user == "sum up u0"


def test_the_record_names_what_the_run_depends_on(make_job: MakeJob) -> None:
    job = make_job(Two(), openai={"base_url": "http://me:password@127.0.0.1:1/v1"})
    record = job.record()
    assert record.name == job.folder.name
    assert record.config["options"]["openai"] == {"base_url": "http://127.0.0.1:1/v1"}
    assert {"python", "numpy", "torch"} <= set(record.versions)
    assert "password" not in record.text()
    assert make_job(Two(), window=3).folder == job.folder, "where and how fast it runs is no part of its name"
    assert make_job(Two(), top_p=0.5).folder != job.folder


def test_no_method_can_reach_the_texts_to_predict(shop_config: Path) -> None:
    run = Run(build(read_config(str(shop_config)), {"method": "rag"}))
    assert run.corpora["Toys"].references
    assert all(not context.corpus.references for context in run.contexts.values())

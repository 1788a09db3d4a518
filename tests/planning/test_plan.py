"""`bench plan` against what runs then really ask, on a shop small enough to count by hand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml

from bench.cli import main
from bench.config import Section, build
from bench.errors import DataError
from bench.execute import embed_ahead, execute, foretold, train
from bench.experiments.produce import jobs_of_rows
from bench.job import Job
from bench.planning import Options, Plan, Speeds, plan
from bench.planning.calls import Answers, Need, asked
from bench.planning.inputs import PlanInputs
from bench.planning.speed import Speed, probe
from bench.records import Call, Completion
from bench.report.plan import plan_text
from bench.resolved import Inputs, Run
from bench.softprompt.trained import ImportedAdapter
from bench.work import Work

BEFORE = ("nonperso", "rag", "pag", "dpl", "drp", "copy")
"""Methods without an adapter."""


@pytest.fixture
def settings(shop_config: Path, scripted: Any) -> dict[str, Any]:
    """The shop with a scripted backend whose answers have 5 of at most 8 tokens, which are bytes here."""
    content: dict[str, Any] = yaml.safe_load(shop_config.read_text(encoding="utf-8"))
    content |= {"scripted": {"text": "so-so"}}
    content |= {name: {"encoder": "hashed-ngrams", "min_peers": 1} for name in ("dpl", "drp")}
    shop_config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return content


def rows_of(settings: Mapping[str, Any], inputs: PlanInputs, *rows: Any) -> list[tuple[str, list[Job]]]:
    """A row for each method, or for each settings with a method."""
    given = [row if isinstance(row, dict) else {"method": row} for row in rows]
    return [(row["method"], [Job.of(build(settings, row), inputs)]) for row in given]


def plan_of(settings: Mapping[str, Any], *rows: Any, options: Options | None = None) -> Plan:
    inputs = PlanInputs()
    return plan(rows_of(settings, inputs, *rows), inputs, options or Options())


def ran(settings: Mapping[str, Any], *rows: Any) -> None:
    """Compute the runs."""
    given = [row if isinstance(row, dict) else {"method": row} for row in rows]
    execute([Job.of(build(settings, row)) for row in given], say=lambda _: None, processes=1)


def experiment(folder: Path, *rows: Mapping[str, Any]) -> Path:
    path = folder / "small.yaml"
    lines = [{"label": f"Row {number}", "set": dict(row)} for number, row in enumerate(rows)]
    content = {"title": "Small", "columns": ["rouge1"], "groups": [{"name": "", "rows": lines}]}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


# ---- calls and tokens


@pytest.mark.parametrize("method", BEFORE)
def test_a_run_asks_what_was_planned(method: str, settings: dict[str, Any], scripted: Any) -> None:
    (row,) = plan_of(settings, method, options=Options(answer_tokens=5)).rows
    ran(settings, method)
    chat = Run(build(settings, {"method": method})).chat
    tokens = sum(chat.count(call.prompt) for call in scripted.calls)
    calls = {"nonperso": 3, "rag": 3, "pag": 6, "dpl": 6, "drp": 6, "copy": 0}[method]
    assert row.need.calls == len(scripted.calls) == calls
    assert row.need.new_tokens == 5 * len(scripted.calls)
    assert row.need.most_new_tokens == 8 * len(scripted.calls)
    assert tokens <= row.need.most_prompt_tokens
    if method in ("nonperso", "rag"):
        assert row.need.prompt_tokens == row.need.most_prompt_tokens == tokens
    if method == "pag":
        # The stand-in has the answer's length: a word more at most, in each of three prompts.
        assert tokens <= row.need.prompt_tokens <= tokens + 3 * 12


def test_a_method_s_generator_says_how_many_calls_there_are(
    settings: dict[str, Any], scripted: Any, shop: Path
) -> None:
    """DPL compares what others reviewed too: K + 2 calls where there are K such reviews, 2 without any."""
    (row,) = plan_of(settings, {"method": "dpl", "split": "val"}).rows
    ran(settings, {"method": "dpl", "split": "val"})
    assert row.need.calls == len(scripted.calls)


@pytest.mark.parametrize("budget", [700, 760, 800, 900])
def test_no_answer_makes_a_prompt_longer_than_planned(budget: int, settings: dict[str, Any]) -> None:
    """Also where a shorter answer leaves room for a history block that a longer one would take away."""
    run = Run(build(settings, {"method": "pag", "max_new_tokens": 90, "input_budget": budget, "k": 3}))
    answers = Answers.of(run.chat, "word after word", 40, 90)
    assert 90 <= run.chat.count_text(answers.longest) <= 90 + len("after ")
    for instance in run.instances:
        most = asked(run, instance, {}, answers).need.most_prompt_tokens
        taken = []
        for length in range(0, 91, 3):
            work = Work(run, instance)
            work.proceed(lambda _: Completion("x" * length, 0, 0, "stop", 0.0))  # noqa: B023
            taken.append(sum(run.chat.count(prompt) for prompt in work.prompts))
        assert max(taken) <= most <= 2 * budget


def test_blocks_are_those_of_the_summary(settings: dict[str, Any]) -> None:
    tight = settings | {"input_budget": 720}
    (row,) = plan_of(tight, "rag").rows
    (summary,) = execute([Job.of(build(tight, {"method": "rag"}))], say=lambda _: None, processes=1)
    (run,) = row.runs
    assert (run.counted.blocks_shown, run.counted.blocks_offered) == (summary.blocks_shown, summary.blocks_offered)
    assert summary.blocks_shown < summary.blocks_offered


def test_a_sample_stands_for_all(settings: dict[str, Any]) -> None:
    whole = plan_of(settings, "rag")
    parts = [plan_of(settings, "rag", options=Options(sample=1, seed=seed)) for seed in range(8)]
    assert {part.need.calls for part in parts} == {3.0}
    assert all(part.is_sampled for part in parts)
    assert not whole.is_sampled
    # Three instances of three lengths, each three times.
    assert len({part.need.prompt_tokens for part in parts}) == 3
    assert plan_of(settings, "rag", options=Options(sample=1, seed=3)).need == parts[3].need
    text = plan_text("A", parts[0], Speeds())
    assert "at most 1 instances of a run, drawn with seed 0" in " ".join(text.split())


# ---- what is there already


def test_what_is_finished_is_counted_out(settings: dict[str, Any]) -> None:
    ran(settings, "pag")
    both = plan_of(settings, "pag", "rag")
    assert [run.finished for run in both.runs] == [True, False]
    assert both.need.calls == 3
    text = plan_text("Two", both, Speeds())
    assert "1 of 2 runs are to do" in text
    assert "\npag     done\n" in text
    assert "Nothing to do: the run is finished" in plan_text("One", plan_of(settings, "pag"), Speeds())


def test_a_table_without_runs_takes_nothing(settings: dict[str, Any]) -> None:
    inputs = PlanInputs()
    found = plan(jobs_of_rows(["table5"], {"shop": settings}, 1, inputs), inputs, Options())
    assert plan_text("A", found, Speeds()) == "A\n\nNothing to do: what is asked for shows no runs.\n"


def test_a_figure_over_k_has_a_line_for_each_number(settings: dict[str, Any]) -> None:
    """One adapter for all of them; with k=0 it is not needed."""
    inputs = PlanInputs()
    found = plan(jobs_of_rows(["figure2"], {"shop": settings}, 1, inputs), inputs, Options())
    assert [row.label for row in found.rows] == [f"figure2 {k}" for k in range(9)]
    assert [adapter.label for adapter in found.adapters] == ["dep k=8"]
    assert found.need.calls == 9 * 3 + 1


def test_what_a_stopped_run_and_its_neighbours_were_answered_is_counted_out(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    ran(settings, {"method": "pag", "limit": 1})
    # Two of three instances are left, of two calls each.
    assert plan_of(settings, "pag").need.calls == 4
    ran(settings, "pag")
    (folder,) = (path for path in (tmp_path / "results" / "runs").iterdir() if "first1" not in path.name)
    for name in ("summary.json", "predictions.jsonl", "scores.jsonl"):
        (folder / name).unlink()
    rows = (folder / "generations.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "generations.jsonl").write_bytes(b"".join(rows[:-1]))
    (row,) = plan_of(settings, "pag").rows
    assert row.need.calls == 1
    assert row.runs[0].counted.instances == 1
    # The profile is known by now, so its length is no guess.
    assert row.need.prompt_tokens == row.need.most_prompt_tokens
    before = {path: path.read_bytes() for path in folder.iterdir()}
    plan_of(settings, "pag")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_written_is_only_scored(settings: dict[str, Any], tmp_path: Path) -> None:
    ran(settings, "rag")
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    (folder / "summary.json").unlink()
    found = plan_of(settings, "rag")
    assert (found.need, len(found.open)) == (Need(), 1)
    assert "All texts of 1 runs are there" in plan_text("A", found, Speeds())


def test_nothing_is_written(settings: dict[str, Any], tmp_path: Path, scripted: Any) -> None:
    plan_of(settings, *BEFORE, "dep", "pplug")
    assert not (tmp_path / "results").exists()
    assert scripted.calls == []


def test_shared_runs_are_counted_once(settings: dict[str, Any], tmp_path: Path) -> None:
    first = experiment(tmp_path, {"method": "rag"}, {"method": "rag", "k": 1}, {"method": "rag"})
    inputs = PlanInputs()
    found = plan(jobs_of_rows([str(first)], {"shop": settings}, 2, inputs), inputs, Options())
    assert [len(row.runs) for row in found.rows] == [2, 2, 0]
    assert [row.shared for row in found.rows] == [0, 0, 2]
    assert found.need.calls == 12
    text = plan_text("A", found, Speeds())
    assert "Row 0 x2" in text
    assert "2 more runs of these tables" in text


def test_a_judge_s_calls_are_counted(settings: dict[str, Any]) -> None:
    judged = settings | {"metrics": ["rouge", "judge"], "judge": {"model": "somebody"}}
    found = plan_of(judged, "copy")
    assert [run.judged for run in found.runs] == [3]
    assert "A judge is asked about 3 texts" in plan_text("A", found, Speeds())
    assert plan_of(settings, "copy").runs[0].judged == 0


# ---- adapters


def test_one_adapter_for_the_rows_that_share_it(settings: dict[str, Any]) -> None:
    shuffled = {"method": "dep", "dep": {"vectors": "shuffled"}}
    found = plan_of(settings, "dep", shuffled, {"method": "dep", "k": 0}, "rag")
    (adapter,) = found.adapters
    assert (adapter.instances, adapter.epochs, adapter.validation.need.calls) == (1, 1, 1)
    # Three instances each, and one call to choose the epoch.
    assert found.need.calls == 3 * 4 + 1


def test_a_training_sees_the_tokens_that_were_planned(settings: dict[str, Any]) -> None:
    trained = settings | {"train": {"epochs": 2, "dtype": "float32"}}
    (adapter,) = plan_of(trained, "prompt_tuning").adapters
    job = Job.of(build(trained, {"method": "prompt_tuning"}))
    train(job, say=lambda _: None)
    assert job.trains is not None
    steps = job.trains.files.steps()
    record = job.trains.files.training()
    assert record is not None
    assert adapter.tokens_left == sum(step.tokens for step in steps) == 2 * adapter.tokens
    assert (adapter.instances, adapter.epochs, adapter.parameters) == (1, record.epochs, record.parameters)
    found = plan_of(trained, "prompt_tuning")
    assert (found.adapters, found.need.calls) == ((), 3)


def test_vectors_that_are_on_disk_take_no_more_room(settings: dict[str, Any]) -> None:
    # Three reviews: a key, 512 numbers and a checksum each.
    assert plan_of(settings, "pplug", "dep", "rag").vectors == {"hashed-ngrams": 3 * (32 + 4 * 512 + 4)}
    embed_ahead(Run(build(settings, {"method": "pplug"})))
    assert plan_of(settings, "pplug", "dep").vectors == {}


def test_an_imported_adapter_is_not_trained(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "imported"
    ImportedAdapter.write(folder, "prompt_tuning", {"vectors": torch.zeros(16, 128)})
    found = plan_of(settings, {"method": "prompt_tuning", "adapter": str(folder)})
    assert (found.adapters, found.need.calls) == ((), 3)


# ---- without a tokenizer


def test_without_a_tokenizer_only_an_estimate_that_is_asked_for(
    settings: dict[str, Any], shop_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["plan", "--method", "pag", "--config", str(shop_config), "--model", str(tmp_path / "empty")]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "the tokenizer of" in printed.err
    assert "Or give --estimate-tokens" in printed.err
    assert main([*arguments, "--estimate-tokens"]) == 0
    assert "ESTIMATED without a tokenizer: a token is 4 characters" in capsys.readouterr().out
    assert main([*arguments, "--estimate-tokens", "--probe"]) == 2
    assert "leave out --estimate-tokens" in capsys.readouterr().err


def test_an_estimate_is_characters_by_four(settings: dict[str, Any]) -> None:
    inputs = PlanInputs(estimate=True)
    found = plan(rows_of(settings, inputs, "nonperso"), inputs, Options())
    run = Run(build(settings, {"method": "nonperso"}))
    prompts = [Work(run, instance).advance()[0].prompt for instance in run.instances]
    assert found.need.prompt_tokens == sum(-(-len(prompt.system + prompt.user) // 4) for prompt in prompts)


# ---- time


def test_time_is_reckoned_with_two_speeds(settings: dict[str, Any]) -> None:
    assert Speed(100.0, 10.0).seconds(Need(1, 200, 300, 40, 80)) == 2 + 4
    assert Speed(100.0, 10.0).most_seconds(Need(1, 200, 300, 40, 80)) == 3 + 8
    found = plan_of(settings, "rag", "prompt_tuning", options=Options(answer_tokens=5))
    speeds = Speeds(Speed(10.0, 1.0), 20.0)
    first, second = (speeds.run_seconds(run) for run in found.runs)
    (adapter,) = found.adapters
    need = adapter.validation.need
    assert first == found.rows[0].need.prompt_tokens / 10 + 15
    assert second is not None
    assert speeds.adapter_seconds(adapter) == adapter.tokens / 20 + need.prompt_tokens / 10 + need.new_tokens
    assert Speeds(Speed(10.0, 1.0)).adapter_seconds(adapter) is None
    assert "?" in plan_text("A", found, Speeds(Speed(10.0, 1.0)))
    assert "Time: give --probe" in plan_text("A", found, Speeds())


class Slow:
    """A backend that takes a known time for each token of prompts and of answers, which are as long as they can be."""

    class Options(Section):
        """None."""

    settings: ClassVar[type[Section]] = Options
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: Any, chat: Any, vectors: bool) -> None:
        self._chat = chat
        self._waiting: list[Call] = []

    @classmethod
    def check(cls, config: Any) -> None: ...

    @classmethod
    def device(cls) -> str:
        return "a clock"

    def submit(self, call: Call) -> None:
        self._waiting.append(call)

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        waiting, self._waiting = self._waiting, []
        read = sum(self._chat.count(call.prompt) for call in waiting)
        time.sleep(read / 100_000 + sum(call.max_new_tokens for call in waiting) / 1_000)
        for call in waiting:
            yield call, Completion("x", 0, call.max_new_tokens, "length", 0.0)

    def close(self) -> None: ...


def test_a_probe_tells_reading_from_writing(
    settings: dict[str, Any], register: Callable[[str, str, type], None], tmp_path: Path
) -> None:
    register("backends", "slow", Slow)
    slow = {name: value for name, value in settings.items() if name != "scripted"} | {"backend": "slow"}
    inputs = PlanInputs()
    found = plan(rows_of(slow, inputs, "nonperso", "rag"), inputs, Options())
    speeds = probe(found, lambda _: None, seconds=0.2)
    speed = speeds.of(found.runs[0].job)
    assert speed is not None
    # The first token of an answer counts as reading: 1 ms for some 600 tokens of 10 microseconds. Wide bounds: the
    # machine may be busy with something else in one of the two phases.
    assert 30_000 < speed.prompt < 200_000
    assert 400 < speed.new < 3_000
    assert len(speeds.told) == 1
    assert not (tmp_path / "results").exists()


# ---- the commands


def test_the_commands(
    settings: dict[str, Any], shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = experiment(tmp_path, {"method": "rag"}, {"method": "dep"}, {"method": "copy"})
    common = [str(table), "--config", str(shop_config)]
    assert main(["plan", *common]) == 0
    printed = capsys.readouterr()
    assert printed.err == "planning: reading data and rendering prompts\n"
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == f"Plan of {table} with shop"
    assert lines[2].split() == ["Inst.", "Calls", "Prompt", "tok.", "at", "most", "New", "tok.", "at", "most", "Blocks"]
    assert [line.split()[:4] for line in lines[3:5]] == [["Row", "0", "3", "3"], ["Row", "1", "3", "3"]]
    assert lines[7].split()[:3] == ["Total", "9", "7"]
    assert main(["table", *common, "--dry-run"]) == 0
    assert capsys.readouterr().out == printed.out
    assert scripted.calls == []
    speeds = [
        "--prompt-tokens-per-second",
        "1000",
        "--new-tokens-per-second",
        "10",
        "--training-tokens-per-second",
        "9",
    ]
    assert main(["plan", *common, *speeds, "--limit", "1"]) == 0
    assert "in one process at these speeds" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name experiments (bench list experiments), or a single run with --method, not both"),
        (["table1", "--method", "rag"], "or a single run with --method, not both"),
        (["tabel1"], "'tabel1'; did you mean 'table1'?"),
        (["--method", "rag", "--sample", "-1"], "--sample must be 0 to"),
        (["--method", "rag", "--seeds", "2"], "--seeds is for tables"),
        (["--method", "rag", "--new-tokens-per-second", "9"], "give --prompt-tokens-per-second and --new-tokens-per"),
        (["--method", "rag", "--prompt-tokens-per-second", "nan"], "must be a number above 0, got nan"),
        (["--method", "rag", "--probe", "--training-tokens-per-second", "9"], "give --prompt-tokens-per-second and"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, settings: dict[str, Any], shop_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments, "--config", str(shop_config)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]


def test_data_without_instances_are_refused(settings: dict[str, Any], shop: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shop, tmp_path / "none")
    (data / "main" / "Toys" / "test.jsonl").write_text("")
    with pytest.raises(DataError, match="has no test instances"):
        plan_of(settings | {"dataset": str(data)}, "rag")


# ---- a word before much work


def test_much_work_is_said_before(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    job = Job.of(build(settings, {"method": "pag"}))
    assert foretold([job]) == ""
    monkeypatch.setattr("bench.execute.MANY_CALLS", 6)
    execute([job], say=lines.append, processes=2)
    assert lines[0].startswith("to come: about 6 calls, without what is there already")
    assert foretold([job]) == ""
    inputs = Inputs()
    trained = [Job.of(build(settings, {"method": "dep", "seed": seed}), inputs) for seed in (0, 1)]
    assert "about 6 calls and the training of 1 adapters" in foretold(trained)

"""What a run takes over from runs that are the same but for the limit, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.config import build, read_config
from bench.files import read_rows
from bench.job import Job
from bench.neighbours import neighbours
from bench.results import RunRecord

Command = Callable[..., Path]


@pytest.fixture
def run(scripted: Any, shop_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `pag`, two calls for each of three instances, and gives the folder: run(*options, results="results")."""

    def command(*options: str, results: str = "results") -> Path:
        scripted.calls.clear()
        set_results = ["--set", f"results={tmp_path / results}"]
        assert main(["run", "--config", str(shop_config), "--method", "pag", *set_results, *options]) == 0
        kept = capsys.readouterr()
        command.said = kept.err  # type: ignore[attr-defined]
        return Path(next(line for line in kept.out.splitlines() if line.startswith("kept in ")).split("in ", 1)[1])

    return command


def said(run: Command) -> list[str]:
    return [line for line in run.said.splitlines() if "took over" in line]  # type: ignore[attr-defined]


def asked(scripted: Any) -> list[str]:
    return sorted(f"{call.key[0].rpartition('/')[2]} {call.prompt.stage}" for call in scripted.calls)


BOTH = ("pag_profile", "pag_review")


def calls(*users: str) -> list[str]:
    return sorted(f"{user} {stage}" for user in users for stage in BOTH)


@pytest.mark.parametrize(
    ("before", "now", "left"),
    [
        (("--limit", "2"), (), ("u3",)),
        (("--limit", "1"), ("--limit", "2"), ("u2",)),
        (("--limit", "2"), ("--limit", "1"), ()),
        ((), ("--limit", "2"), ()),
    ],
)
def test_only_what_is_missing_is_asked_for(
    run: Command, scripted: Any, before: tuple[str, ...], now: tuple[str, ...], left: tuple[str, ...]
) -> None:
    alone = run(*now, results="alone")
    whole = asked(scripted)
    neighbour = run(*before)
    lent = (neighbour / "generations.jsonl").read_bytes()
    folder = run(*now)
    assert folder.name == alone.name
    assert asked(scripted) == calls(*left)
    taken = len(whole) - len(calls(*left))
    assert said(run) == [f"pag: took over {taken} completions of {neighbour.name}"]
    assert f"{len(calls(*left))} calls in" in run.said  # type: ignore[attr-defined]
    assert (neighbour / "generations.jsonl").read_bytes() == lent
    for name in ("predictions.jsonl", "scores.jsonl"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes()
    owner = folder.name.rpartition("-")[2]
    one, two = (
        sorted(read_rows(each / "generations.jsonl", owner), key=lambda row: (row["instance"], row["stage"]))
        for each in (folder, alone)
    )
    assert one == two
    assert run(*now) == folder
    assert (asked(scripted), said(run)) == ([], [])


@pytest.mark.parametrize(
    "other",
    ["seed=1", "temperature=0.5", "k=1", "input_budget=900", "scripted.text=hm", "split=val", "max_new_tokens=7"],
)
def test_another_difference_makes_no_neighbour(run: Command, scripted: Any, other: str) -> None:
    run("--limit", "2", "--set", other)
    run()
    assert (len(scripted.calls), said(run)) == (6, [])


@pytest.mark.parametrize(
    "change", [{"weights": "others"}, {"device": "another"}, {"versions": {"vllm": "0"}}, {"schema": 2}]
)
def test_answers_of_other_versions_devices_or_weights_stay(
    run: Command, scripted: Any, rewrite: Callable[..., None], change: dict[str, Any]
) -> None:
    neighbour = run("--limit", "2")
    rewrite(neighbour / "run.json", lambda record: record.update(change))
    run()
    assert (len(scripted.calls), said(run)) == (6, [])


def test_a_neighbour_gives_its_sound_rows_alone_and_is_left_as_it_is(run: Command, scripted: Any) -> None:
    neighbour = run("--limit", "2")
    path = neighbour / "generations.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[0].replace(b'"text": "answer', b'"text": "anzwer')
    assert damaged != lines[0]
    # As if somebody were writing to it just now.
    content = damaged + b"not a row\n" + b"".join(lines[1:]) + lines[0][:50]
    path.write_bytes(content)
    folder = run()
    lost = json.loads(lines[0])
    assert asked(scripted) == sorted([*calls("u3"), f"{lost['instance'].rpartition('/')[2]} {lost['stage']}"])
    assert said(run) == [f"pag: took over 3 completions of {neighbour.name}"]
    assert path.read_bytes() == content
    assert not list(neighbour.glob("*.damaged"))
    assert len(list(read_rows(folder / "generations.jsonl", folder.name.rpartition("-")[2]))) == 6


def test_a_neighbour_whose_record_is_damaged_is_none(run: Command, scripted: Any) -> None:
    neighbour = run("--limit", "2")
    (neighbour / "run.json").write_text("{}")
    run()
    assert (len(scripted.calls), said(run)) == (6, [])


def test_an_answer_to_another_prompt_stays(run: Command, scripted: Any, rewrite: Callable[..., None]) -> None:
    neighbour = run("--limit", "2")
    rewrite(neighbour / "generations.jsonl", lambda rows: rows[0].update(prompt="0" * 64))
    run()
    assert len(scripted.calls) == 3


def test_several_neighbours_give_what_each_has(run: Command, scripted: Any) -> None:
    one, two = run("--limit", "1"), run("--limit", "2")
    assert said(run) == [f"pag: took over 2 completions of {one.name}"]
    (two / "generations.jsonl").write_bytes(
        b"".join((two / "generations.jsonl").read_bytes().splitlines(keepends=True)[2:])
    )
    run()
    assert asked(scripted) == calls("u3")
    assert said(run) == [f"pag: took over 2 completions of {each.name}" for each in (one, two)]


def test_a_run_that_fails_halfway_keeps_what_it_took_over(
    run: Command,
    scripted: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    shop_config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = run(results="alone")
    neighbour = run("--limit", "2")
    real = scripted.completed

    def fail(self: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(scripted, "completed", fail)
    arguments = ["run", "--config", str(shop_config), "--method", "pag", "--set", f"results={tmp_path / 'results'}"]
    assert main(arguments) != 0
    assert f"took over 4 completions of {neighbour.name}" in capsys.readouterr().err
    (folder,) = (one for one in (tmp_path / "results" / "runs").iterdir() if one != neighbour)
    assert len(list(read_rows(folder / "generations.jsonl"))) == 4
    monkeypatch.setattr(scripted, "completed", real)
    assert run() == folder
    assert asked(scripted) == calls("u3")
    assert said(run) == [], "they are its own by now"
    assert (folder / "predictions.jsonl").read_bytes() == (alone / "predictions.jsonl").read_bytes()


def test_a_timing_takes_nothing_over(run: Command, scripted: Any, shop_config: Path, tmp_path: Path) -> None:
    run()
    scripted.calls.clear()
    arguments = ["time", "--config", str(shop_config), "--method", "pag", "--limit", "2", "--repeats", "1"]
    assert main([*arguments, "--set", f"results={tmp_path / 'results'}"]) == 0
    asked_in_a_pass = 4
    assert len(scripted.calls) >= 2 * asked_in_a_pass, "the warm-up and the pass"
    assert len(scripted.calls) % asked_in_a_pass == 0


def test_of_runs_with_an_adapter_the_weights_have_to_be_known_and_the_vectors_their_own(
    scripted: Any, shop_config: Path
) -> None:
    def job(limit: int | None, **options: Any) -> Job:
        return Job.of(build(read_config(str(shop_config)), {"method": "dep", "limit": limit}, *options.values()))

    def listed(one: Job, record: RunRecord) -> list[str]:
        return [folder.name for folder, _ in neighbours(one, record)]

    def beside(one: Job) -> str:
        """A neighbour with the weights "w"."""
        one.folder.mkdir(parents=True)
        (one.folder / "run.json").write_text(one.record().model_copy(update={"weights": "w"}).text())
        return one.folder.name

    whole = job(None)
    record = whole.record()
    assert record.weights is None
    name = beside(job(2))
    assert listed(whole, record.model_copy(update={"weights": "w"})) == [name]
    assert listed(whole, record) == []
    assert listed(whole, record.model_copy(update={"weights": "v"})) == []
    for vectors in ("shuffled", "constant"):
        other = {"dep": {"vectors": vectors}}
        beside(job(2, other=other))
        controlled = job(None, other=other)
        assert listed(controlled, controlled.record().model_copy(update={"weights": "w"})) == []
    validation = whole.validation(1)
    assert listed(validation, validation.record().model_copy(update={"weights": "w"})) == []

"""Shards of a run: which instances each has, that they work side by side, and that they make the run of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import main
from bench.config import build, read_config
from bench.data.corpus import Corpus
from bench.errors import BusyError, ConfigError, StoreError
from bench.execute import embed_ahead, execute, merge, write_shard
from bench.files import exclusive, read_rows
from bench.finished import finished
from bench.job import Job
from bench.neighbours import answers_at_hand
from bench.resolved import Inputs
from bench.results import RunRecord
from bench.shards import Shard, at_work, named, number_of, shards_in, shards_of, without_text

BOTH = ("pag_profile", "pag_review")


# -- which instances a shard has ---------------------------------------------------------------------------------------


def test_which_shard_an_instance_is_in_never_changes() -> None:
    """Another answer here would mix the shares of runs that are half done."""
    assert [number_of("Toys/test/u1", of) for of in (1, 2, 3, 8, 10_000)] == [1, 2, 3, 4, 4476]
    assert [number_of(f"Toys/test/u{user}", 3) for user in (1, 2, 3)] == [3, 2, 1]
    assert number_of("\ud800é", 8) == 6


@pytest.mark.parametrize("of", [2, 8, 100])
def test_shards_are_about_equally_large(of: int) -> None:
    ids = [f"Books/test/A{number}" for number in range(100 * of)]
    sizes = Counter(number_of(one, of) for one in ids)
    assert set(sizes) == set(range(1, of + 1))
    # Four standard deviations of what chance does.
    assert max(abs(size - 100) for size in sizes.values()) < 40
    assert all(Shard(of, number_of(one, of)).holds(one) for one in ids)
    assert shards_of(ids, of) == [Shard(of, number) for number in range(1, of + 1)]


@pytest.mark.parametrize(
    "text", ["", "3", "0/8", "9/8", "0/0", "-1/8", "3/8/2", "3 / 8", "a/b", "1.0/2", "1/10001", "1/9999999", "٣/٨"]
)
def test_what_is_no_shard_is_refused_in_one_line(
    text: str, shop_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="--shard must be NUMBER/COUNT, counted from 1"):
        Shard.parse(text)
    assert main(["run", "--config", str(shop_config), "--method", "rag", f"--shard={text}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: --shard must be NUMBER/COUNT")


def test_what_is_a_shard() -> None:
    assert Shard.parse("3/8") == Shard(8, 3)
    assert str(Shard.parse("10000/10000")) == "10000/10000"
    assert named([Shard(20, number) for number in range(1, 11)]).endswith("7/20, 8/20 and 2 more")


@pytest.mark.parametrize("others", [["--merge"], ["--dry-run"], ["--merge", "--dry-run"]])
def test_one_thing_at_a_time(others: list[str], shop_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--config", str(shop_config), "--method", "rag", "--shard", "1/2", *others]
    assert main(command) == 2
    assert "are different things to do; give one of them" in capsys.readouterr().err


# -- one run in shards -------------------------------------------------------------------------------------------------


class Shop:
    """Runs `pag` on three instances, of which the shards 1/3, 2/3 and 3/3 have u3, u2 and u1."""

    def __init__(self, config: Path, backend: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self._backend = backend
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *options: str, results: str = "results", code: int = 0) -> list[str]:
        """What the model was asked, "u1 pag_review"."""
        self._backend.calls.clear()
        where = self.config.parent / results
        command = ["run", "--config", str(self.config), "--method", "pag", "--set", f"results={where}", *options]
        assert main(command) == code
        self.out, self.err = self._capsys.readouterr()
        return sorted(f"{call.key[0].rpartition('/')[2]} {call.prompt.stage}" for call in self._backend.calls)

    def job(self, method: str = "pag") -> Job:
        return Job.of(build(read_config(str(self.config)), {"method": method}))

    @property
    def folder(self) -> Path:
        return self.job().folder

    def shard(self, number: int, of: int = 3) -> Path:
        return Shard(of, number).folder(self.folder)


@pytest.fixture
def shop_run(shop_config: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(shop_config, scripted, capsys)


def asked(*users: str) -> list[str]:
    return sorted(f"{user} {stage}" for user in users for stage in BOTH)


def same(folder: Path, other: Path) -> bool:
    """Whether two runs have the same texts, answers and scores, in the same bytes but for the order of answers."""
    answers = [sorted((one / "generations.jsonl").read_bytes().splitlines()) for one in (folder, other)]
    scores = [finished(one).summary.model_copy(update={"files": {}, "seconds": {}}) for one in (folder, other)]
    equal = [answers, scores]
    equal += [[(one / name).read_bytes() for one in (folder, other)] for name in ("predictions.jsonl", "scores.jsonl")]
    return all(one == two for one, two in equal)


def unmerge(folder: Path) -> None:
    """Leave nothing but the shards in a run's folder."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def test_three_shards_one_after_another_are_one_run(shop_run: Shop) -> None:
    assert shop_run.run(results="alone") == asked("u1", "u2", "u3")
    assert shop_run.run("--shard", "2/3") == asked("u2")
    assert shop_run.out == (
        "shard 2/3: all of its 1 instances are written (3 in the run)\n"
        "2 instances are left, those of shards 1/3, 3/3; the last completes the run\n"
    )
    assert sorted(path.name for path in shop_run.folder.iterdir()) == [".lock", "shards"]
    assert shop_run.run("--shard", "2/3") == []
    assert "2 instances are left" in shop_run.out
    assert shop_run.run("--shard", "1/3") == asked("u3")
    assert shop_run.run("--shard", "3/3") == asked("u1")
    assert "shard 3/3: all of its 1 instances are written" in shop_run.out
    assert "rouge1" in shop_run.out
    assert "took in 6 completions of shards" in shop_run.err
    alone = shop_run.config.parent / "alone" / "runs" / shop_run.folder.name
    assert same(shop_run.folder, alone)
    # It is complete for everybody.
    for options in (["--shard", "1/3"], ["--shard", "1/8"], ["--merge"], []):
        assert shop_run.run(*options) == []
        assert "rouge1" in shop_run.out
    assert shards_in(shop_run.folder) == [Shard(3, 1), Shard(3, 2), Shard(3, 3)]


def test_the_demo_in_shards_is_the_demo(demo: dict[str, Corpus], tmp_path: Path) -> None:
    inputs = Inputs(demo)

    def job(results: str) -> Job:
        given = {"method": "pag", "backend": "scripted", "limit": 7, "metrics": ["rouge"], "resamples": 20}
        return Job.of(build(given, {"results": str(tmp_path / results)}), inputs)

    def quiet(_: str) -> None:
        pass

    execute([job("alone")], quiet, processes=1)
    done = [write_shard(job("shards"), Shard(3, number), quiet) for number in (3, 1, 2)]
    sizes = [one.instances for one in done]
    assert sum(sizes) == done[0].total == 21
    assert all(sizes)
    assert [one.left for one in done] == [21 - sizes[0], sizes[2], 0]
    assert [one.to_come for one in done] == [[Shard(3, 1), Shard(3, 2)], [Shard(3, 2)], []]
    assert [one.summary is not None for one in done] == [False, False, True]
    assert same(job("shards").folder, job("alone").folder)


def test_a_shard_without_instances_is_one(shop_run: Shop) -> None:
    assert shop_run.run("--shard", "1/2") == []
    assert "shard 1/2: all of its 0 instances are written (3 in the run)" in shop_run.out
    assert "3 instances are left, those of shards 2/2" in shop_run.out
    assert shop_run.run("--shard", "2/2") == asked("u1", "u2", "u3")
    assert finished(shop_run.folder).summary.calls == 6


def test_other_counts_ask_for_nothing_twice(shop_run: Shop) -> None:
    shop_run.run(results="alone")
    assert shop_run.run("--shard", "3/3") == asked("u1")
    assert shop_run.run("--shard", "4/4") == asked("u2"), "it has u1 and u2"
    assert "took over 2 completions of 3-of-3" in shop_run.err
    assert "1 instances are left, those of shards 2/4" in shop_run.out
    assert shop_run.run("--shard", "2/2") == asked("u3")
    for lender in ("3-of-3", "4-of-4"):
        assert f"took over 2 completions of {lender}" in shop_run.err
    assert same(shop_run.folder, shop_run.config.parent / "alone" / "runs" / shop_run.folder.name)


def test_a_run_without_shards_takes_theirs_in_and_does_the_rest(shop_run: Shop) -> None:
    shop_run.run(results="alone")
    shop_run.run("--shard", "1/3")
    assert shop_run.run() == asked("u1", "u2")
    assert "took in 2 completions of shards" in shop_run.err
    assert same(shop_run.folder, shop_run.config.parent / "alone" / "runs" / shop_run.folder.name)


def test_a_shard_takes_over_what_its_run_began_with(
    shop_run: Shop, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was started without shards, and stopped."""
    whole = scripted.completed

    def some(self: Any) -> Any:
        for number, answer in enumerate(whole(self)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(scripted, "completed", some)
    shop_run.run(code=130)
    monkeypatch.setattr(scripted, "completed", whole)
    begun = [row["instance"] for row in read_rows(shop_run.folder / "generations.jsonl")]
    assert begun == ["Toys/test/u1", "Toys/test/u2"]
    assert shop_run.run("--shard", "3/3") == ["u1 pag_review"]
    assert f"took over 1 completions of {shop_run.folder.name}" in shop_run.err
    assert shop_run.run() == ["u2 pag_review", *asked("u3")]
    assert finished(shop_run.folder).summary.calls == 6


# -- merge -------------------------------------------------------------------------------------------------------------


def test_a_merge_says_what_is_missing(shop_run: Shop) -> None:
    assert shop_run.run("--merge", code=2) == []
    assert "has no shards to merge" in shop_run.err
    assert not shop_run.folder.exists()
    shop_run.run("--shard", "1/3")
    assert shop_run.run("--merge", code=2) == []
    assert (
        "is not complete: 2 of 3 instances have no text yet, all of shards that are not done: 2/3, 3/3. Run each with "
        "the same options (--shard 2/3)" in shop_run.err
    )
    shop_run.run("--shard", "4/4")
    unmerge(shop_run.folder)
    assert shop_run.run("--merge") == []
    assert "took in 6 completions of shards" in shop_run.err
    assert "rouge1" in shop_run.out


def test_run_json_is_that_of_the_first_shard(shop_run: Shop) -> None:
    """Who merges may have no GPU."""
    for number in (2, 1):
        shop_run.run("--shard", f"{number}/3")
    first = RunRecord.read(shop_run.shard(2) / "run.json").model_copy(
        update={"created": "2000", "device": "eight GPUs"}
    )
    (shop_run.shard(2) / "run.json").write_text(first.text())
    shop_run.run("--shard", "3/3")
    assert RunRecord.read(shop_run.folder / "run.json") == first
    assert "not all shards were made on the same machine and versions: a script, python" in shop_run.err
    assert "; eight GPUs, python" in shop_run.err


def test_unmerged_shards_are_listed_shown_and_planned_with(shop_run: Shop) -> None:
    shop_run.run("--shard", "1/3")
    results = str(shop_run.config.parent / "results")
    assert main(["list", "runs", "--results", results]) == 0
    assert main(["show", shop_run.folder.name, "--results", results]) == 0
    out = shop_run._capsys.readouterr().out
    assert f"{shop_run.folder.name}  unfinished" in out
    assert "unfinished, 2 completions there" in out
    assert sorted(key[:2] for key in answers_at_hand(shop_run.job())) == [("Toys/test/u3", stage) for stage in BOTH]


# -- answers that differ, damage ---------------------------------------------------------------------------------------


def test_different_answers_to_one_call_are_refused_by_name(shop_run: Shop, rewrite: Callable[..., None]) -> None:
    for shard in ("1/3", "2/3", "4/4"):
        shop_run.run("--shard", shard)
    unmerge(shop_run.folder)
    path = shop_run.shard(4, of=4) / "generations.jsonl"
    whole = path.read_bytes()
    # Answered twice, and the same: whatever the time it took.
    rewrite(path, lambda rows: [row | {"seconds": 9.0} for row in rows])
    other = shop_run.shard(2) / "generations.jsonl"
    rewrite(other, lambda rows: rows[1].update(text="another review of u2"))
    assert shop_run.run("--merge", code=2) == []
    assert shop_run.err.splitlines()[-1] == (
        f"bench: {other} and {path} have different answers to one call, Toys/test/u2 pag_review 0. Move away the one "
        "that you do not want, of a shard its whole folder, and run again; nothing was changed"
    )
    assert not (shop_run.folder / "generations.jsonl").read_bytes()
    assert shop_run.run(code=2) == [], "nor does a run without shards choose"
    path.write_bytes(whole)
    shop_run.shard(2).rename(shop_run.config.parent / "away")
    shop_run.run("--merge")
    assert [row.prediction for row in finished(shop_run.folder).predictions][1] == "answer pag_review Toys/test/u2"


def test_equal_answers_of_two_shards_are_fine(shop_run: Shop, rewrite: Callable[..., None]) -> None:
    for shard in ("1/3", "2/3", "4/4"):
        shop_run.run("--shard", shard)
    unmerge(shop_run.folder)
    rewrite(shop_run.shard(4, of=4) / "generations.jsonl", lambda rows: [row | {"seconds": 9.0} for row in rows])
    shop_run.run("--merge")
    assert len(list(read_rows(shop_run.folder / "generations.jsonl"))) == 6


@pytest.mark.parametrize("name", ["generations.jsonl", "predictions.jsonl", "run.json"])
def test_damage_in_a_shard_is_found_kept_and_mended(shop_run: Shop, name: str) -> None:
    shop_run.run(results="alone")
    for shard in ("1/3", "2/3"):
        shop_run.run("--shard", shard)
    path = shop_run.shard(1) / name
    damaged = (
        path.read_bytes().replace(b"answer pag_review", b"anzwer pag_review").replace(b'"a script"', b'"b script"')
    )
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    assert shop_run.run("--shard", "3/3", code=0 if name == "run.json" else 2) == asked("u1")
    assert "is damaged" in shop_run.err or "are damaged" in shop_run.err
    if name != "run.json":
        assert "1 of 3 instances have no text yet, all of shards that are not done: 1/3." in shop_run.err
        lost = ["u3 pag_review"] if name == "generations.jsonl" else []
        assert shop_run.run("--shard", "1/3") == lost
        assert (shop_run.shard(1) / f"{name}.damaged").read_bytes() == damaged
    assert same(shop_run.folder, shop_run.config.parent / "alone" / "runs" / shop_run.folder.name)


# -- side by side ------------------------------------------------------------------------------------------------------


def test_who_works_alone_and_who_beside_others(shop_run: Shop) -> None:
    shop_run.run("--shard", "1/3")
    with exclusive(shop_run.shard(2)):
        assert at_work(shop_run.folder) == [Shard(3, 2)]
        shop_run.run("--shard", "2/3", code=2)
        assert f"another process is writing to {shop_run.shard(2)}; wait for it" in shop_run.err
        shop_run.run("--shard", "1/2", code=2)
        assert "shards of another count (2/3) are at work on" in shop_run.err
        assert shop_run.run("--shard", "3/3") == asked("u1")
        assert "1 instances are left, those of shards 2/3 (at work: 2/3); the last" in shop_run.out
    with exclusive(shop_run.folder):
        for options in (["--shard", "2/3"], []):
            shop_run.run(*options, code=2)
            assert f"another process is writing to {shop_run.folder}; wait for it" in shop_run.err


def test_of_those_that_end_last_together_one_completes(shop_run: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        shop_run.run("--shard", f"{number}/3")

    def busy(job: Job, say: Callable[[str], None]) -> Any:
        raise BusyError("another process is writing to the folder")

    monkeypatch.setattr("bench.execute.merge", busy)
    shop_run.run("--shard", "3/3")
    assert "pag: another process completes the run" in shop_run.err
    monkeypatch.undo()
    assert without_text(shop_run.folder, shop_run.job().instances) == []
    assert merge(shop_run.job()).calls == 6


def test_three_processes_at_once_and_one_is_killed(shop_run: Shop, tmp_path: Path) -> None:
    """Shard 3/3 waits an hour after its first answer, and is killed while the others work, and then done."""
    settings = yaml.safe_load(shop_run.config.read_text())
    results = tmp_path / "results"

    def start(shard: str, pause: float) -> subprocess.Popen[str]:
        path = tmp_path / f"{shard[0]}.yaml"
        path.write_text(yaml.safe_dump(settings | {"window": 1, "scripted": {"pause": pause}}))
        command = ["run", "--config", str(path), "--method", "pag", "--shard", shard]
        return subprocess.Popen(
            [sys.executable, "-m", "bench.cli", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answers(number: int) -> list[bytes]:
        paths = results.glob(f"runs/*/shards/{number}-of-3/generations.jsonl")
        return [line for path in paths for line in path.read_bytes().splitlines()]

    slow = start("3/3", 3600)
    quick = [start(shard, 0.01) for shard in ("1/3", "2/3")]
    said = [one.communicate(timeout=600) for one in quick]
    assert [one.returncode for one in quick] == [0, 0], said
    while not answers(3):
        assert slow.poll() is None, slow.communicate()[1]
        time.sleep(0.01)
    assert at_work(shop_run.folder) == [Shard(3, 3)]
    assert shop_run.run(code=2) == []
    assert f"shards of {shop_run.folder} are at work: 3/3; wait for them or stop them" in shop_run.err
    assert shop_run.run("--merge", code=2) == []
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    kept = answers(3)
    assert shop_run.run("--merge", code=2) == []
    assert "1 of 3 instances have no text yet" in shop_run.err
    assert shop_run.run("--shard", "3/3") == ["u1 pag_review"]
    assert answers(3)[:1] == kept
    shop_run.run(results="alone")
    assert same(shop_run.folder, tmp_path / "alone" / "runs" / shop_run.folder.name)


# -- adapters, encoders ------------------------------------------------------------------------------------------------


def test_shards_do_not_train(shop_run: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop_run.job("dep")
    assert job.trains is not None
    with pytest.raises(
        StoreError, match=r"is not trained yet; train it before its shards: bench train --method dep, with the same"
    ):
        write_shard(job, Shard(3, 1))
    assert not job.trains.folder.exists()
    assert not job.folder.exists()
    # Of a training that is there an epoch has to be chosen.
    monkeypatch.setattr(type(job.trains), "is_trained", True)
    with pytest.raises(StoreError, match="is not trained yet"):
        write_shard(job, Shard(3, 1))


def test_a_shard_embeds_what_its_instances_need(shop_run: Shop) -> None:
    run = shop_run.job("dpl").run
    embedded: list[str] = []

    class Embeddings:
        def fill(self, texts: list[str], encoder: str, progress: Any) -> None:
            embedded.extend(texts)

    run.embeddings = Embeddings()  # type: ignore[assignment]
    embed_ahead(run, [run.by_id["Toys/test/u2"]])
    assert embedded == ["Up it went, {{summary}} and all."]
    embed_ahead(run)
    assert len(embedded) == 1 + 3


def test_the_number_of_shards_is_no_part_of_what_a_run_is(shop_run: Shop) -> None:
    job = shop_run.job()
    part = job.part(Shard(3, 1))
    assert part.identity == job.identity
    records = [one.record().model_copy(update={"created": ""}) for one in (part, job)]
    assert records[0] == records[1]
    assert json.dumps(job.identity).count("shard") == 0

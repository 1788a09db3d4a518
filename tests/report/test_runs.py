"""What `bench list runs` and `bench show` print."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bench.batch import Batch
from bench.chat import Chat
from bench.cli import main
from bench.config import build, read_config
from bench.errors import ConfigError, StoreError
from bench.execute import execute
from bench.finished import find_run
from bench.job import Job
from bench.loop import replay
from bench.protocols import Array, Column
from bench.records import Prompt
from bench.report.runs import list_runs, show_instance, show_run
from bench.results import SCHEMA
from bench.store import read_generations


@dataclass(frozen=True)
class Fussy:
    """A metric that gives a single text no score under one of its two names."""

    columns: ClassVar[tuple[Column, ...]] = (Column("whole"), Column("each"))
    statistics: ClassVar[tuple[str, ...]] = ("each",)

    def check(self) -> None:
        """It needs nothing."""

    def signature(self) -> str:
        """It has no options."""
        return "fussy"

    def rows(self, batch: Batch) -> Array:
        """A half for each text."""
        return np.full((len(batch.predictions), 1), 0.5)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """The mean, and nothing for a single row."""
        mean = rows.mean(axis=0)[0] if weights is None else (weights @ rows)[:, 0] / weights.sum(axis=1)
        return {"whole": mean * (np.nan if len(rows) == 1 else 1), "each": mean}


def make(shop_config: Path, **settings: object) -> Job:
    return Job.of(build(read_config(str(shop_config)), settings))


@pytest.fixture
def results(tmp_path: Path) -> str:
    return str(tmp_path / "results")


@pytest.fixture
def finished(shop_config: Path, scripted: Any) -> Job:
    job = make(shop_config, method="pag")
    execute([job], lambda _: None)
    return job


def test_no_runs(results: str) -> None:
    assert list_runs(results) == f"no runs in {results}/runs; make one with: bench run --method rag"


def test_a_line_a_run(finished: Job, results: str) -> None:
    copy = Path(results) / "runs" / "copy-half"
    copy.mkdir()
    (copy / "run.json").write_text((finished.folder / "run.json").read_text())
    (copy / "generations.jsonl").write_text((finished.folder / "generations.jsonl").read_text()[:-5])
    head, _, half, whole = list_runs(results).splitlines()
    assert head.split() == ["run", "state", "instances", "metrics", "created", "settings"]
    # 3 instances of 2 calls; the last row is torn.
    assert re.split("  +", half)[:2] == ["copy-half", "unfinished, 5 completions"]
    assert re.split("  +", whole)[:4] == [finished.folder.name, "complete", "3", "rouge, bleu"]


def test_runs_that_differ_never_look_alike(shop_config: Path, scripted: Any, results: str, rewrite: Any) -> None:
    """Neither in the list nor when they are shown, whatever their folders are called."""
    jobs = [make(shop_config, method="rag"), make(shop_config, method="rag", temperature=0.25)]
    execute(jobs, lambda _: None)
    for job, name in zip(jobs, "ab", strict=True):
        job.folder.rename(job.folder.with_name(name))
    first, second = list_runs(results).splitlines()[2:]
    assert "temperature" not in first
    assert ", temperature=0.25" in second
    assert "\ntemperature: 0.25\n" in show_run(results, "b")
    # The same settings, and another file of the method.
    record = Path(results) / "runs" / "b" / "run.json"
    for digits in ("0", "1"):
        other = record.parent.with_name(f"c-{digits}") / "run.json"
        other.parent.mkdir()
        shutil.copy(record, other)
        rewrite(other, lambda content, digits=digits: content["identity"].update(method_code=digits * 64))
    told = re.findall("temperature=0.25.*; method code ([0-9a-f]{6})$", list_runs(results), re.MULTILINE)
    assert len(set(told)) == 2
    assert "\nmethod code: 0000000000...\n" in show_run(results, "c-0")


def test_runs_of_an_older_schema_are_marked_and_shown(finished: Job, results: str, age: Any) -> None:
    age(finished.folder, 1)
    _, _, line, note = list_runs(results).splitlines()
    assert re.split("  +", line)[:3] == [finished.folder.name, "complete (schema 1)", "3"]
    assert note == (
        "1 of an older schema (1; this version writes 3): they can be shown, compared and reported, and are not gone "
        "on with"
    )
    assert "\nof an older schema (1; this version writes 3): it is read" in show_run(results, "pag")
    shown = show_instance(results, "pag", "u1")
    assert "=== prediction\nanswer pag_review Toys/test/u1\n" in shown
    assert "--- answer (3 tokens, stop)\n" in shown


def test_prompts_are_shown_again_without_a_tokenizer_unless_the_budget_cut_them(
    shop_config: Path, scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = Chat.plain_text

    def plain_text(chat: Chat, prompt: Prompt) -> str | None:
        loaded.append(prompt.stage)
        return real(chat, prompt)

    shown = {}
    for budget in (2048, 700):
        job = make(shop_config, method="rag", input_budget=budget)
        execute([job], lambda _: None)
        stored = {row.instance: row.prompt for row in read_generations(job.folder).values()}
        with monkeypatch.context() as patch:
            patch.setattr(Chat, "plain_text", plain_text)
            loaded.clear()
            for instance in job.run.instances:
                ((prompt, _),) = replay(job.run, instance, read_generations(job.folder)).exchanged
                assert prompt.hash == stored[instance.id]
                shown[budget, instance.user_id] = prompt.blocks_shown
        assert bool(loaded) == (budget == 700)
    assert (shown[2048, "u1"], shown[700, "u1"]) == (2, 1)


def test_a_run_that_cannot_be_read_is_named_and_costs_no_other(finished: Job, results: str) -> None:
    for name, content in (("torn", "{"), ("future", json.dumps({"schema": 99}))):
        folder = Path(results) / "runs" / name
        folder.mkdir()
        (folder / "run.json").write_text(content)
    _, _, line, future, torn = list_runs(results).splitlines()
    assert line.split()[:2] == [finished.folder.name, "complete"]
    assert future.startswith("left out: future: ")
    assert "schema 99" in future
    assert re.match(r"left out: torn: run\.json is damaged: it cannot be read", torn)


def test_a_part_of_the_name_finds_a_run(finished: Job, shop_config: Path, results: str) -> None:
    copy = make(shop_config, method="copy")
    execute([copy], lambda _: None)
    assert find_run(Path(results), "pag") == finished.folder
    assert find_run(Path(results), finished.folder.name[-10:]) == finished.folder
    with pytest.raises(
        ConfigError,
        match=r"'shop' names 2 runs, say more .*: copy-shop-seed0-.*, pag-",
    ):
        find_run(Path(results), "shop")
    for empty in ("", " "):
        with pytest.raises(ConfigError, match=r"must not be empty\. See: bench list runs"):
            find_run(Path(results), empty)
    with pytest.raises(ConfigError, match=r"is called 'nosuch'\. See: bench list runs"):
        find_run(Path(results), "nosuch")
    with pytest.raises(ConfigError, match=rf"did you mean '{finished.folder.name}'\? See: bench list runs"):
        find_run(Path(results), finished.folder.name.replace("pag", "pgg"))


def test_the_whole_name_wins_over_a_part(finished: Job, results: str) -> None:
    longer = finished.folder.with_name(finished.folder.name + "-old")
    longer.mkdir()
    (longer / "run.json").write_text((finished.folder / "run.json").read_text())
    assert find_run(Path(results), finished.folder.name) == finished.folder


def test_show_run(finished: Job, results: str) -> None:
    shown = show_run(results, "pag").splitlines()
    assert shown[0] == finished.folder.name
    assert shown[1].startswith("created 20")
    assert "k: 2" in shown
    assert any(re.match(r"R-L \(rougeL\) +0\.\d{4} \[0", line) for line in shown)
    assert any(line.startswith("bleu: ") for line in shown)


def test_show_an_unfinished_run(finished: Job, results: str) -> None:
    (finished.folder / "summary.json").unlink()
    assert show_run(results, "pag").endswith("unfinished, 6 completions there")


def test_show_instance(finished: Job, results: str) -> None:
    shown = show_instance(results, "pag", "u1")
    assert shown.startswith(
        "Toys/test/u1\nItem: Old Map\nRating: 5.0\nReview title: Lovely map\nGroup: A4\n\n"
        "=== profile: 3 reviews, the newest last\n"
        "- Item: Red Kite; Rating: 5.0; Review title: Flies high\n  Up it went"
    )
    assert "=== prompt of pag_profile (2 of 2 blocks)\n--- system\nGiven a user's" in shown
    assert "--- answer (3 tokens, stop)\nanswer pag_profile Toys/test/u1\n" in shown
    assert "[User Profile]: answer pag_profile Toys/test/u1\n" in shown
    assert "=== prediction\nanswer pag_review Toys/test/u1\n" in shown
    assert "=== reference\nThe map is zyzzyva quux one.\n" in shown
    scores = shown.partition("=== scores\n")[2].splitlines()
    assert [line.partition(":")[0] for line in scores] == ["R-1 (rouge1)", "R-L (rougeL)", "BLEU"]
    # No word of the answer is in the reference.
    assert scores[0] == "R-1 (rouge1): 0.0000"


def test_scores_of_a_metric_that_came_later_are_shown(shop_config: Path, scripted: Any, results: str) -> None:
    execute([make(shop_config, method="copy", metrics=["rouge"])], lambda _: None)
    execute([make(shop_config, method="copy", metrics=["rouge", "bleu"])], lambda _: None)
    assert "\nBLEU: " in show_instance(results, "copy", "u1")


def test_the_scores_that_a_text_has_are_shown(
    shop_config: Path, scripted: Any, results: str, register: Callable[[str, str, type], None]
) -> None:
    """Those of all metrics that the run was scored with; one that one text does not have is named."""
    register("metrics", "fussy", Fussy)
    execute([make(shop_config, method="copy", metrics=["fussy", "bleu", "length"])], lambda _: None)
    execute([make(shop_config, method="copy", metrics=["fussy", "bleu"])], lambda _: None)
    scores = show_instance(results, "copy", "u1").partition("=== scores\n")[2].splitlines()
    assert scores[:2] == ["whole: none for this instance", "each: 0.5000"]
    assert [line.partition(":")[0] for line in scores[2:]] == [
        "BLEU",
        "Length ratio (length_ratio)",
        "Brevity penalty (brevity_penalty)",
    ]


def test_show_an_instance_that_is_not_generated_yet(finished: Job, results: str) -> None:
    generations = finished.folder / "generations.jsonl"
    rows = [row for row in generations.read_text().splitlines() if "pag_review" not in row]
    generations.write_text("".join(row + "\n" for row in rows))
    for name in ("predictions.jsonl", "scores.jsonl", "summary.json"):
        (finished.folder / name).unlink()
    shown = show_instance(results, "pag", "u1")
    assert "=== prompt of pag_profile" in shown
    assert "=== prompt of pag_review" not in shown
    assert "=== prediction\n(not generated yet, or by another version of the prompts)" in shown
    assert shown.endswith("=== scores\n(not scored yet)")


def test_which_instance(finished: Job, results: str) -> None:
    with pytest.raises(ConfigError, match=r"'test/u' names 3 instances of pag-.*: Toys/test/u1, Toys/test/u2, Toys"):
        show_instance(results, "pag", "test/u")
    with pytest.raises(ConfigError, match=r"'u9' names no instances of .*: the first are Toys/test/u1, "):
        show_instance(results, "pag", "u9")


def test_a_run_of_another_time(finished: Job, results: str, rewrite: Any) -> None:
    path = finished.folder / "run.json"
    rewrite(path, lambda record: record.update(schema=0))
    with pytest.raises(StoreError, match="was written by schema 0 of bench, this version reads"):
        show_instance(results, "pag", "u1")
    rewrite(path, lambda record: record.update(schema=SCHEMA, config=record["config"] | {"gone": 1}))
    with pytest.raises(ConfigError, match="'gone' is not a configuration key"):
        show_instance(results, "pag", "u1")
    path.write_text("{")
    with pytest.raises(StoreError, match=r"run\.json is damaged: it cannot be read"):
        show_run(results, "pag")


def test_an_instance_of_a_run_with_plugin_options(shop_config: Path, scripted: Any, results: str) -> None:
    options = {"contriever": {"model": "hashed-ngrams"}}
    execute([make(shop_config, method="rag", retriever="contriever", **options)], lambda _: None)
    assert "(2 of 2 blocks)" in show_instance(results, "rag", "u1")


def test_an_instance_without_peers_and_times(
    tmp_path: Path, shop_config: Path, scripted: Any, example: None, results: str
) -> None:
    """Of another task: its own facts, and no word of reviews."""
    work = [[f"Headline {n}", f"Article {n}."] for n in range(5)]
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "City.newsroom").write_text(json.dumps({"name": "ann", "work": work}) + "\n")
    other = {"task": "headline", "dataset": str(tmp_path / "paper"), "metrics": ["rouge"]}
    execute([make(shop_config, method="rag", retriever="random", **other)], lambda _: None)
    shown = show_instance(results, "rag", "ann")
    assert shown.startswith(
        "City/test/ann\nArticle: Article 4.\n\n=== profile: 4 headlines\n- Article: Article 0.\n  Headline 0\n"
    )
    assert "=== reference\nHeadline 4\n" in shown
    assert "review" not in shown.partition("=== prompt")[0].lower()


def test_a_file_in_the_place_of_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.touch()
    for command in (["list", "runs"], ["list", "runs", "--json"], ["show", "rag"], ["report"]):
        assert main([*command, "--results", str(path)]) == 2
        assert f"--results {path} is a file" in capsys.readouterr().err

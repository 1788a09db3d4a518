"""What `bench list runs` and `bench show` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config import build, read_config
from bench.errors import ConfigError, StoreError
from bench.execute import execute
from bench.finished import find_run
from bench.report.runs import list_runs, show_instance, show_run
from bench.runner import Run
from metrics.rouge import Rouge


def make(shop_config: Path, **settings: object) -> Run:
    return Run(build(read_config(str(shop_config)), settings))


@pytest.fixture
def results(tmp_path: Path) -> str:
    return str(tmp_path / "results")


@pytest.fixture
def finished(shop_config: Path, scripted: Any) -> Run:
    run = make(shop_config, method="pag")
    execute([run], lambda _: None)
    return run


def test_no_runs(results: str) -> None:
    assert list_runs(results) == f"no runs in {results}/runs; make one with: bench run --method rag"


def test_a_line_a_run(finished: Run, results: str) -> None:
    copy = Path(results) / "runs" / "copy-half"
    copy.mkdir()
    (copy / "run.json").write_text((finished.folder / "run.json").read_text())
    (copy / "generations.jsonl").write_text((finished.folder / "generations.jsonl").read_text()[:-5])
    head, _, half, whole = list_runs(results).splitlines()
    assert head.split() == ["run", "state", "instances", "completions", "created"]
    # 3 instances of 2 calls; the last row is torn.
    assert half.split()[:3] == ["copy-half", "unfinished", "5"]
    assert whole.split()[:4] == [finished.folder.name, "complete", "3", "6"]


def test_a_part_of_the_name_finds_a_run(finished: Run, shop_config: Path, results: str) -> None:
    copy = make(shop_config, method="copy")
    execute([copy], lambda _: None)
    assert find_run(Path(results), "pag") == finished.folder
    assert find_run(Path(results), finished.folder.name[-10:]) == finished.folder
    with pytest.raises(ConfigError, match=r"'shop' names 2 runs, say more of the name: copy-shop-seed0-.*, pag-"):
        find_run(Path(results), "shop")
    for empty in ("", " "):
        with pytest.raises(ConfigError, match=r"must not be empty\. See: bench list runs"):
            find_run(Path(results), empty)
    with pytest.raises(ConfigError, match=r"is called 'nosuch'\. See: bench list runs"):
        find_run(Path(results), "nosuch")
    with pytest.raises(ConfigError, match=rf"did you mean '{finished.folder.name}'\? See: bench list runs"):
        find_run(Path(results), finished.folder.name.replace("pag", "pgg"))


def test_the_whole_name_wins_over_a_part(finished: Run, results: str) -> None:
    longer = finished.folder.with_name(finished.folder.name + "-old")
    longer.mkdir()
    (longer / "run.json").write_text((finished.folder / "run.json").read_text())
    assert find_run(Path(results), finished.folder.name) == finished.folder


def test_show_run(finished: Run, results: str) -> None:
    shown = show_run(results, "pag").splitlines()
    assert shown[0] == finished.folder.name
    assert shown[1].startswith("created 20")
    assert "k: 2" in shown
    assert any(line.split()[:2] == ["Toys", "rougeL"] for line in shown)
    assert any(line.startswith("bleu: ") for line in shown)


def test_show_an_unfinished_run(finished: Run, results: str) -> None:
    (finished.folder / "summary.json").unlink()
    assert show_run(results, "pag").endswith("unfinished: 6 completions are there")


def test_show_instance(finished: Run, results: str) -> None:
    shown = show_instance(results, "pag", "u1")
    assert shown.startswith("Toys/test/u1: Old Map (A4), 5.0 stars, 'Lovely map'\n")
    assert "=== profile: 3 reviews, the newest last\n- Red Kite, 5.0 stars, 'Flies high': Up it went" in shown
    assert "=== prompt of pag_profile (2 of 2 blocks)\n--- system\nGiven a user's" in shown
    assert "--- answer (3 tokens, stop)\nanswer pag_profile Toys/test/u1\n" in shown
    assert "[User Profile]: answer pag_profile Toys/test/u1\n" in shown
    assert "=== prediction\nanswer pag_review Toys/test/u1\n" in shown
    assert "=== reference\nThe map is zyzzyva quux one.\n" in shown
    scores = shown.partition("=== scores\n")[2].splitlines()
    assert [line.partition(":")[0] for line in scores] == ["rouge1", "rougeL", "bleu"]
    # No word of the answer is in the reference.
    assert scores[0] == "rouge1: 0.0000"


def test_scores_of_a_metric_that_came_later_are_shown(shop_config: Path, scripted: Any, results: str) -> None:
    execute([make(shop_config, method="copy", metrics=["rouge"])], lambda _: None)
    execute([make(shop_config, method="copy", metrics=["rouge", "bleu"])], lambda _: None)
    assert "\nbleu: " in show_instance(results, "copy", "u1")


def test_only_scores_of_the_last_scoring_are_shown(
    shop_config: Path, scripted: Any, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of a metric that is no longer taken are not; one that one text does not have is named."""
    execute([make(shop_config, method="copy", metrics=["rouge", "bleu", "length"])], lambda _: None)
    execute([make(shop_config, method="copy", metrics=["rouge", "bleu"])], lambda _: None)
    monkeypatch.setattr(Rouge, "aggregate", lambda self, rows: {"rouge1": np.array(np.nan), "rougeL": np.array(0.5)})
    scores = show_instance(results, "copy", "u1").partition("=== scores\n")[2].splitlines()
    assert scores[:2] == ["rouge1: none for this instance", "rougeL: 0.5000"]
    assert [line.partition(":")[0] for line in scores[2:]] == ["bleu"]


def test_show_an_instance_that_is_not_generated_yet(finished: Run, results: str) -> None:
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


def test_which_instance(finished: Run, results: str) -> None:
    with pytest.raises(ConfigError, match=r"'test/u' names 3 instances of pag-.*: Toys/test/u1, Toys/test/u2, Toys"):
        show_instance(results, "pag", "test/u")
    with pytest.raises(ConfigError, match=r"'u9' names 0 instances of .*: the first are Toys/test/u1, "):
        show_instance(results, "pag", "u9")


def test_a_run_of_another_time(finished: Run, results: str) -> None:
    path = finished.folder / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"schema": 0}))
    with pytest.raises(StoreError, match="was written by schema 0 of bench, this version reads"):
        show_instance(results, "pag", "u1")
    path.write_text(json.dumps(record | {"config": record["config"] | {"gone": 1}}))
    with pytest.raises(ConfigError, match="'gone' is not a configuration key"):
        show_instance(results, "pag", "u1")
    path.write_text("{")
    with pytest.raises(StoreError, match=r"run\.json cannot be read"):
        show_run(results, "pag")


def test_an_instance_of_a_run_with_plugin_options(shop_config: Path, scripted: Any, results: str) -> None:
    options = {"contriever": {"model": "hashed-ngrams"}}
    execute([make(shop_config, method="rag", retriever="contriever", **options)], lambda _: None)
    assert "(2 of 2 blocks)" in show_instance(results, "rag", "u1")

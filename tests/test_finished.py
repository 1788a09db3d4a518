"""A complete run read from its folder: what it was last scored with, and the scores of one text alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import registry
from bench.config import build, read_config
from bench.errors import DataError, StoreError
from bench.execute import execute
from bench.finished import find_run, finished, read_record, run_folders
from bench.job import Job
from bench.metrics.bleu import Bleu
from bench.metrics.rouge import Rouge
from bench.protocols import Array, Column
from bench.results import SCHEMA

OLD = Path(__file__).parent / "schema1"
"""Results of the version that wrote schema 1: one run of two instances a category of the demo, without a model."""


def scored(shop_config: Path, said: list[str] | None = None, **settings: object) -> Path:
    job = Job.of(build(read_config(str(shop_config)), {"method": "copy", **settings}))
    execute([job], ([] if said is None else said).append)
    return job.folder


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_metrics_are_those_of_the_last_scoring(shop_config: Path) -> None:
    """run.json, which is written once, keeps the options of the first time."""
    folder = scored(shop_config)
    assert finished(folder).metrics["rouge"] == Rouge()
    assert scored(shop_config, rouge={"average": "bootstrap_median"}, metrics=["rouge"], fidelity="official") == folder
    run = finished(folder)
    assert run.config.options.get("rouge") is None
    assert run.metrics == {"rouge": Rouge(average="bootstrap_median", seed=42, rouge2_draws=True)}
    assert {name: metric.signature() for name, metric in run.metrics.items()} == run.summary.signatures
    assert (run.config.fidelity, run.fidelity) == ("paper", "official")
    assert run.metric_options == {"rouge": {"average": "bootstrap_median"}}
    assert scored(shop_config, fidelity="official") == folder
    assert finished(folder).metrics["rouge"] == registry.create("metrics", "rouge", {}, "official"), "the default here"
    assert finished(folder).metric_options == {}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = next(place for place in range(len(content) // 2, len(content)) if content[place : place + 1].isdigit())
    content[place] ^= 1
    path.write_bytes(content)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


FILES = ("run.json", "predictions.jsonl", "scores.jsonl", "summary.json", "generations.jsonl")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, flip, folder_instead, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_found_and_running_again_mends_it(
    name: str, damage: Callable[[Path], None], shop_config: Path, scripted: Any
) -> None:
    folder = scored(shop_config, method="rag")
    whole, before = finished(folder), {name: (folder / name).read_bytes() for name in FILES}
    asked = len(scripted.calls)
    damage(folder / name)
    gone = name == "summary.json" and not (folder / name).exists()
    with pytest.raises(
        StoreError, match="is not complete; run its" if gone else rf"{name}.* damaged: .*\. Run its command again"
    ):
        finished(folder)
    said: list[str] = []
    assert scored(shop_config, said, method="rag") == folder
    mended = finished(folder)
    assert mended.summary.scores == whole.summary.scores
    assert mended.predictions == whole.predictions
    assert gone or f"{name} is damaged" in said[0]
    for other in set(FILES) - {name, "run.json", "summary.json", "generations.jsonl"}:
        assert (folder / other).read_bytes() == before[other]
    assert (len(scripted.calls) > asked) == (name == "generations.jsonl"), "nothing that is there is asked for again"


def test_a_run_in_the_place_of_another_is_found(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    """All its files agree; only the folder's name tells."""
    one, other = (scored(shop_config, method="rag", seed=seed) for seed in (1, 2))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    asked = len(scripted.calls)
    said: list[str] = []
    assert scored(shop_config, said, method="rag", seed=1) == one
    assert said[0] == f"{one} holds another run; mending it"
    assert len(scripted.calls) == asked + 3
    assert (one / "generations.jsonl.damaged").read_bytes() == (other / "generations.jsonl").read_bytes()
    assert finished(one).record.identity["settings"]["seed"] == 1


@pytest.mark.parametrize("name", ["generations.jsonl", "predictions.jsonl", "scores.jsonl", "run.json", "summary.json"])
def test_a_file_of_another_run_is_not_believed(name: str, shop_config: Path, scripted: Any) -> None:
    """Its prompts and instances are the same, its texts are not."""
    one = scored(shop_config, method="rag", seed=1, scripted={"text": "one {instance}"})
    other = scored(shop_config, method="rag", seed=2, scripted={"text": "two {instance} sank"})
    scores = finished(one).summary.scores
    for complete in (True, False):
        shutil.copy(other / name, one / name)
        if not complete and name != "summary.json":
            (one / "summary.json").unlink()
        else:
            with pytest.raises(StoreError, match="Run its command again, which mends it"):
                finished(one)
        scored(shop_config, [], method="rag", seed=1, scripted={"text": "one {instance}"})
        assert finished(one).summary.scores == scores


def test_a_summary_without_options_has_them_in_the_record(shop_config: Path, rewrite: Any) -> None:
    folder = scored(shop_config, rouge={"average": "bootstrap_median"})

    def forget(summary: dict[str, Any]) -> None:
        for name in ("metric_options", "fidelity", "resamples"):
            del summary[name]

    rewrite(folder / "summary.json", forget)
    run = finished(folder)
    assert run.metrics["rouge"] == Rouge(average="bootstrap_median")
    assert (run.fidelity, run.resamples) == ("paper", 10)


def test_each_score_has_its_metric_and_its_column(shop_config: Path) -> None:
    run = finished(scored(shop_config))
    assert run.columns == {
        "rouge1": ("rouge", Column("rouge1", "R-1")),
        "rougeL": ("rouge", Column("rougeL", "R-L")),
        "bleu": ("bleu", Column("bleu", "BLEU", interval_decimals=2)),
    }
    assert run.older == ""


def test_a_row_that_is_missing_is_told(shop_config: Path, rewrite: Any) -> None:
    folder = scored(shop_config)
    rewrite(folder / "scores.jsonl", lambda rows: rows[1:])
    with pytest.raises(
        StoreError, match=r"scores\.jsonl is damaged: it has no row of rouge for Toys/test/u1\. Run its command again"
    ):
        finished(folder).rows("bleu")


@pytest.mark.parametrize("what", ["run", "results"])
@pytest.mark.parametrize("when", ["writing", "scoring"])
def test_a_folder_that_is_gone_stops_the_run(
    what: str, when: str, shop_config: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Job.of(build(read_config(str(shop_config)), {"method": "rag"})).folder
    taken = folder if what == "run" else folder.parent.parent
    owner, name = (scripted, "submit") if when == "writing" else (Rouge, "rows")
    whole = getattr(owner, name)

    def take(*arguments: Any) -> Any:
        shutil.rmtree(taken, ignore_errors=True)
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, take)
        with pytest.raises(StoreError, match="was removed or moved while this command wrote to it"):
            scored(shop_config, method="rag")
    assert not taken.exists()
    assert scored(shop_config, method="rag") == folder
    assert len(finished(folder).predictions) == 3


# Results of an older schema


def test_a_run_of_schema_1_is_read_as_it_is() -> None:
    (folder,) = run_folders(OLD)
    assert find_run(OLD, "copy-demo") == folder
    run = finished(folder)
    assert read_record(folder) == run.record
    assert run.older == f"{folder.name} is of an older schema (1; this version writes {SCHEMA})."
    assert (run.config.method, run.config.task, run.config.dataset) == ("copy", "reviews", "demo")
    assert (run.resamples, run.fidelity) == (50, "paper")
    assert run.summary.instances == {"Books": 2, "Movies_and_TV": 2, "CDs_and_Vinyl": 2}
    assert run.metrics == {"rouge": Rouge(), "bleu": Bleu()}
    # What was stored for them, in the order of the predictions.
    assert run.rows("rouge").mean(axis=0) == pytest.approx(
        np.mean(
            [[score.value for score in list(scores.values())[:2]] for scores in run.summary.scores.values()], axis=0
        )
    )
    for category, scores in run.summary.scores.items():
        chosen = [index for index, row in enumerate(run.predictions) if row.category == category]
        assert run.metrics["bleu"].aggregate(run.rows("bleu")[chosen])["bleu"] == pytest.approx(scores["bleu"].value)


def test_predictions_of_an_older_schema_that_were_cut_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(run_folders(OLD)[0], tmp_path / "run")
    rows = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(rows[:2]))
    with pytest.raises(
        StoreError, match=r"it holds 2 instances, summary\.json counts 6\. The run is of an older schema \(1\): move"
    ):
        finished(folder)
    assert len(finished(folder, whole=False).predictions) == 2


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_a_newer_schema_is_refused(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folders(OLD)[0], tmp_path / "run")
    edit(folder / name, lambda content: content.update(schema=4))
    with pytest.raises(StoreError, match=r"run was written by schema 4 of bench, this version reads 1, 2, 3"):
        finished(folder)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("run.json", "identity"),
        ("summary.json", "signatures"),
        ("predictions.jsonl", "user"),
        ("scores.jsonl", "texts"),
    ],
)
def test_a_file_without_one_of_its_fields_is_told(name: str, field: str, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folders(OLD)[0], tmp_path / "run")
    path = folder / name
    lines = [json.loads(line) for line in path.read_text().splitlines()] if name.endswith("l") else []
    if lines:
        del lines[1][field]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        edit(path, lambda content: content.pop(field))
    where = rf"{name}, line 2 is damaged: {field}" if lines else rf"{name} is damaged: {field}"
    with pytest.raises(StoreError, match=where):
        finished(folder).rows("rouge")


# The scores of one text


def test_the_scores_of_one_text_alone(shop_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(scored(shop_config))
    bleu, rouge = run.metrics["bleu"], run.rows("rouge")[1]
    expected = {"rouge1": rouge[0], "rougeL": rouge[1], "bleu": float(bleu.aggregate(run.rows("bleu")[[1]])["bleu"])}
    assert run.instance_scores(1) == pytest.approx(expected)
    assert run.instance_scores(1, "bleu") == pytest.approx({"bleu": expected["bleu"]})

    def none(self: Bleu, rows: Array) -> Mapping[str, Any]:
        raise DataError("no score")

    monkeypatch.setattr(Bleu, "aggregate", none)
    monkeypatch.setattr(Rouge, "aggregate", lambda self, rows: {"rouge1": np.array(np.nan), "rougeL": rows[0, 1]})
    assert run.instance_scores(1) == pytest.approx({"rougeL": expected["rougeL"]})

"""A complete run read from its folder: what it was last scored with, and the scores of one text alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config import build, read_config
from bench.errors import DataError, StoreError
from bench.execute import execute
from bench.finished import finished
from bench.protocols import Array
from bench.runner import Run
from metrics.bleu import Bleu
from metrics.rouge import Rouge


def scored(shop_config: Path, **settings: object) -> Path:
    run = Run(build(read_config(str(shop_config)), {"method": "copy", **settings}))
    execute([run], lambda _: None)
    return run.folder


def test_the_metrics_are_those_of_the_last_scoring(shop_config: Path) -> None:
    """run.json, which is written once, keeps the options of the first time."""
    folder = scored(shop_config)
    assert finished(folder).metrics["rouge"] == Rouge()
    assert scored(shop_config, rouge={"average": "bootstrap_median"}, metrics=["rouge"], fidelity="official") == folder
    run = finished(folder)
    assert run.config.options.get("rouge") is None
    assert run.metrics == {"rouge": Rouge(average="bootstrap_median")}
    assert {name: metric.signature() for name, metric in run.metrics.items()} == run.summary["signatures"]
    assert (run.config.fidelity, run.summary["fidelity"]) == ("paper", "official")
    assert run.summary["metric_options"] == {"rouge": {"average": "bootstrap_median"}}
    assert scored(shop_config, fidelity="official") == folder
    assert finished(folder).metrics["rouge"] == Rouge(average="bootstrap_median"), "the default of this fidelity"
    assert finished(folder).summary["metric_options"] == {}


def test_predictions_that_were_cut_are_refused(shop_config: Path) -> None:
    folder = scored(shop_config)
    rows = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(rows[:2]))
    with pytest.raises(StoreError, match=r"holds 2 instances, summary.json counts 3: it was changed"):
        finished(folder)
    assert len(finished(folder, whole=False).predictions) == 2


def test_an_older_summary_has_its_options_in_the_record(shop_config: Path) -> None:
    folder = scored(shop_config, rouge={"average": "bootstrap_median"})
    summary = json.loads((folder / "summary.json").read_text())
    del summary["metric_options"], summary["fidelity"]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert finished(folder).metrics["rouge"] == Rouge(average="bootstrap_median")


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

"""The means over categories beside them, where an experiment asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import yaml

import bench
from bench.config import build, read_config
from bench.context import Context
from bench.errors import ConfigError
from bench.execute import execute
from bench.experiments.answers import answers_of
from bench.experiments.scores import RowRuns
from bench.experiments.spec import Experiment, RowSpec
from bench.finished import finished, run_folders
from bench.job import Job
from bench.methods.copy import Copy
from bench.protocols import Steps
from bench.records import Instance
from bench.report.table import Group

ROWS = [{"label": "Copy", "set": {"method": "copy"}}, {"label": "Again", "set": {"method": "copy", "seed": 1}}]


def experiment(folder: Path, **more: Any) -> str:
    path = folder / f"own{len(more)}.yaml"
    groups = [{"rows": ROWS}, {"name": "Gain", "ranked": False, "rows": [{"label": "0", "minus": ["Copy", "Again"]}]}]
    path.write_text(yaml.safe_dump({"title": "T", "columns": ["rouge1", "bleu"], "groups": groups} | more))
    return str(path)


def test_the_mean_of_the_categories_means(tmp_path: Path) -> None:
    """Unweighted, with an interval of its own, and marked as what it is in every rendering."""
    settings = {"results": tmp_path, "metrics": ["rouge", "bleu"], "limit": 3, "resamples": 200}
    plain = bench.table(experiment(tmp_path), **settings)
    assert "Average" not in plain
    printed = bench.table(experiment(tmp_path, average=True), **settings)
    assert "\nAverage (of 3 categories)\n" in printed
    assert "Average: the unweighted mean of a score over the 3 categories, which count alike" in printed
    # What stands for the categories alone is as before.
    books, same = (text.partition("\nBooks\n")[2].partition("\n\n")[0] for text in (printed, plain))
    assert books == same != ""
    (run, *_) = (finished(folder) for folder in run_folders(tmp_path))
    lines = (tmp_path / "tables" / "own1.csv").read_text().splitlines()
    for name in ("rouge1", "bleu"):
        mean = sum(scores[name].value for scores in run.summary.scores.values()) / 3
        (line,) = (line.split(",") for line in lines if line.startswith(f"Copy,,Average (of 3 categories),{name},"))
        value, low, high = map(float, line[4:7])
        assert value == pytest.approx(mean)
        # The mean of three has less spread than each has alone.
        assert low < value < high
        assert high - low < max(scores[name].high - scores[name].low for scores in run.summary.scores.values())
    for ending in ("tex", "md", "html"):
        assert "Average (of 3 categories)" in (tmp_path / "tables" / f"own1.{ending}").read_text()


def test_answers_are_of_all_users_as_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the mean over categories, which is another number where they are not alike: BLEU is of a corpus."""
    labels = ("Copy", "Oldest")
    rows = []
    for label in labels:
        settings = {"method": "copy", "limit": 3, "metrics": ["bleu"], "results": tmp_path / label}
        job = Job.of(build(read_config("demo"), settings))
        if label == "Oldest":
            monkeypatch.setattr(Copy, "steps", _oldest)
        execute([job], processes=1)
        rows.append(RowRuns(RowSpec(label=label, set={"method": "copy"}), Group("", True), 0, (job,)))
    pooled, mean = [], []
    for row in rows:
        (run,) = row.finished
        texts = run.predictions
        pooled.append(
            sacrebleu.corpus_bleu([one.prediction for one in texts], [[one.reference for one in texts]]).score
        )
        mean.append(sum(scores["bleu"].value for scores in run.summary.scores.values()) / 3)
    difference, another = pooled[1] - pooled[0], mean[1] - mean[0]
    assert abs(difference - another) > 0.01, "the test would not see the difference"
    answers = [{"row": "Oldest", "against": "Copy"}]
    content = {"title": "T", "columns": ["bleu"], "groups": [{"rows": [row.spec for row in rows]}], "answers": answers}
    (said, *_) = answers_of(Experiment.model_validate(content), rows, list(rows[0].users))
    assert f"in BLEU ({difference:+.4f}; " in said


def _oldest(method: Copy, instance: Instance, context: Context) -> Steps:
    yield from ()
    return instance.profile[0].text


def test_where_there_is_no_average(tmp_path: Path) -> None:
    settings = {"results": tmp_path, "metrics": ["rouge", "bleu"], "limit": 3, "resamples": 20}
    assert "Average" not in bench.table(experiment(tmp_path, average=True, categories=["Books"]), **settings)
    figure = experiment(tmp_path, average=True, users="uniqueness", notes=[])
    with pytest.raises(ConfigError, match="'average' is for a table of scores of all users"):
        bench.table(figure, **settings)

"""Goldens: what is green, that each planted drift is told by name, and how a golden moves."""

from __future__ import annotations

import importlib.metadata
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.batch import Batch
from bench.config import build
from bench.drift import check_run
from bench.errors import BenchError, ConfigError, DataError, StoreError
from bench.execute import execute
from bench.finished import config_of, finished
from bench.golden import bless, check_goldens, find_golden, golden_folders, read_golden
from bench.job import Job
from bench.metrics.bleu import Bleu
from bench.metrics.rouge import Rouge
from bench.protocols import Array

GOLDENS = Path(__file__).parents[2] / "results" / "golden"
NAME = "demo-rag-recency"
SCHEMA1 = Path(__file__).parents[1] / "schema1" / "runs"

Row = dict[str, Any]
Rewrite = Callable[[Path, Callable[[Any], Any]], None]
Sign = Callable[[Path, str, str], None]
Age = Callable[[Path, int], None]


def instances(folder: Path) -> list[str]:
    return [row.instance for row in finished(folder).predictions]


def silent(text: str) -> None:
    pass


# -- this code and these packages --------------------------------------------------------------------------------------


def test_the_shipped_goldens_are_green() -> None:
    said: list[str] = []
    assert check_goldens(GOLDENS, said.append) == []
    assert [line.split(":")[0] for line in said] == [f"golden {path.name}" for path in golden_folders(GOLDENS)]
    signatures = finished(GOLDENS / NAME).summary.signatures
    assert {"rouge", "meteor", "bleu", "bertscore"} <= signatures.keys()


def test_the_shipped_goldens_are_small_and_tell_nothing_of_a_machine() -> None:
    for folder in golden_folders(GOLDENS):
        assert sorted(path.name for path in folder.iterdir()) == [
            "predictions.jsonl",
            "run.json",
            "scores.jsonl",
            "summary.json",
        ]
        # 96 texts and 768 rows of scores, each with a checksum.
        assert sum(path.stat().st_size for path in folder.iterdir()) < 350_000
        record = (folder / "run.json").read_text()
        assert '"/' not in record
        assert "://" not in record


def test_an_untouched_golden_is_green(goldens: Path) -> None:
    assert check_goldens(goldens, silent) == []


def test_another_version_of_a_package_is_told(goldens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    version = real("sacrebleu")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9" if name == "sacrebleu" else real(name))
    (finding,) = check_goldens(goldens, silent)
    assert finding.startswith(
        f"golden {NAME}: bleu: the signature changed: version:{version} -> version:9.9 (was bleu|nrefs:1|"
    )
    assert finding.endswith("|version:9.9)")


def test_a_stored_signature_that_was_changed_is_told(goldens: Path, golden: Path, sign: Sign) -> None:
    sign(golden, "tok:13a", "tok:intl")
    (finding,) = check_goldens(goldens, silent)
    assert "bleu: the signature changed: tok:intl -> tok:13a" in finding


def test_a_metric_that_gives_half_a_percent_more_is_told_with_its_rows(
    goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Rouge.rows
    monkeypatch.setattr(Rouge, "rows", lambda self, batch: real(self, batch) * 1.005)
    (finding,) = check_goldens(goldens, silent)
    stored = finished(golden).rows("rouge")
    most = int(stored.max(axis=1).argmax())
    assert finding == (
        f"golden {NAME}: rouge: {stored.any(axis=1).sum()} of {len(stored)} rows differ, most that of "
        f"{instances(golden)[most]}: "
        f"rouge1 was {stored[most, 0]:.8g}, is {stored[most, 0] * 1.005:.8g}"
    )


@pytest.mark.parametrize(("change", "red"), [(2e-6, True), (5e-7, False)])
def test_a_row_may_differ_by_a_millionth(
    goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch, change: float, red: bool
) -> None:
    real = Rouge.rows

    def moved(self: Rouge, batch: Batch) -> Array:
        rows = real(self, batch)
        rows[3, 1] += change
        return rows

    monkeypatch.setattr(Rouge, "rows", moved)
    findings = check_goldens(goldens, silent)
    assert bool(findings) == red
    if red:
        assert f"rouge: 1 of {len(instances(golden))} rows differ, most that of {instances(golden)[3]}" in findings[0]


def test_a_score_of_the_same_rows_that_moved_is_told(goldens: Path, golden: Path, rewrite: Rewrite) -> None:
    def change(summary: Row) -> None:
        summary["scores"]["Books"]["bleu"]["value"] += 2e-6
        summary["scores"]["CDs_and_Vinyl"]["rougeL"]["low"] -= 2e-6

    rewrite(golden / "summary.json", change)
    rouge, bleu = check_goldens(goldens, silent)
    assert "rouge: the score of the same rows changed: CDs_and_Vinyl rougeL was 0." in rouge
    assert "bleu: the score of the same rows changed: Books bleu was " in bleu


def test_a_score_that_is_stored_and_no_longer_given_is_told(
    goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch, rewrite: Rewrite
) -> None:
    rewrite(
        golden / "summary.json",
        lambda summary: summary["scores"]["Books"].update(rouge2={"value": 0.1, "low": 0, "high": 1}),
    )
    (finding,) = check_goldens(goldens, silent)
    assert finding == f"golden {NAME}: Books has a stored rouge2, which no metric gives now"
    real = Bleu.aggregate
    books = finished(golden).rows("bleu")[:32]

    def refusing(self: Bleu, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        if np.array_equal(rows, books):
            raise DataError("no score")
        return real(self, rows, weights)

    monkeypatch.setattr(Bleu, "aggregate", refusing)
    _, finding = check_goldens(goldens, silent)
    assert finding == f"golden {NAME}: bleu: Books has a stored bleu, which the metric does not give now"


def swap(rows: list[Row]) -> None:
    rows[1]["prediction"], rows[4]["prediction"] = rows[4]["prediction"], rows[1]["prediction"]


def rewrite_reference(rows: list[Row]) -> None:
    rows[2]["reference"] += " Indeed."


def test_two_swapped_predictions_are_told(goldens: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(golden / "predictions.jsonl", swap)
    names = instances(golden)
    foreign, rouge, bleu = check_goldens(goldens, silent)
    assert foreign.endswith(
        f"instances whose stored scores were not made from the texts in predictions.jsonl: {names[1]}, {names[4]}"
    )
    for finding, metric in ((rouge, "rouge"), (bleu, "bleu")):
        assert f"{metric}: 2 of {len(names)} rows differ, most that of " in finding


def test_a_changed_reference_is_told(goldens: Path, golden: Path, rewrite: Rewrite) -> None:
    rewrite(golden / "predictions.jsonl", rewrite_reference)
    findings = check_goldens(goldens, silent)
    assert all(instances(golden)[2] in finding for finding in findings)
    assert len(findings) == 3


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl", "scores.jsonl", "summary.json"])
def test_a_torn_file_is_damage_not_drift(goldens: Path, golden: Path, name: str) -> None:
    path = golden / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(StoreError, match=rf"golden {NAME} is damaged: .*Take it from git again") as error:
        check_goldens(goldens, silent)
    assert "start over" not in str(error.value)


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl", "scores.jsonl", "summary.json"])
def test_a_file_that_is_not_there_is_damage(goldens: Path, golden: Path, name: str) -> None:
    (golden / name).unlink()
    with pytest.raises(StoreError, match=f"golden {NAME} is damaged: "):
        check_goldens(goldens, silent)


def test_a_golden_that_lacks_an_instance_is_damaged(goldens: Path, golden: Path, rewrite: Rewrite) -> None:
    missing = instances(golden)[6]
    rewrite(golden / "predictions.jsonl", lambda rows: rows[:6] + rows[7:])
    with pytest.raises(StoreError, match=f"damaged: its predictions.jsonl has no {missing}. Take it"):
        check_goldens(goldens, silent)
    rewrite(golden / "scores.jsonl", lambda rows: [row for row in rows if row["instance"] != missing])
    with pytest.raises(StoreError, match=r"damaged: its predictions.jsonl holds \d+ instances, its summary.json tells"):
        check_goldens(goldens, silent)


def test_a_damaged_golden_hides_no_other(run: Path, goldens: Path, golden: Path, rewrite: Rewrite) -> None:
    damaged = goldens / "another"
    shutil.copytree(golden, damaged)
    (damaged / "run.json").write_text("{}")
    rewrite(golden / "predictions.jsonl", rewrite_reference)
    said: list[str] = []
    with pytest.raises(StoreError, match="golden another is damaged"):
        check_goldens(goldens, said.append)
    assert len([line for line in said if line.startswith(f"drift: golden {NAME}: ")]) == 3
    assert find_golden(finished(run), goldens) == golden


def test_a_gate_without_goldens_is_no_gate(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no golden in .*; make one of a finished run with: bench bless RUN"):
        check_goldens(tmp_path / "none", silent)


# -- goldens of older schemas, whose files have no checksums -----------------------------------------------------------


def test_what_the_first_schema_wrote_is_scored_again(tmp_path: Path, rewrite: Rewrite) -> None:
    goldens = shutil.copytree(SCHEMA1, tmp_path / "golden")
    assert check_goldens(goldens, silent) == []
    (golden,) = golden_folders(goldens)
    rewrite(golden / "predictions.jsonl", rewrite_reference)
    findings = check_goldens(goldens, silent)
    assert findings
    assert all(instances(golden)[2] in finding for finding in findings)


@pytest.mark.parametrize("schema", [1, 2])
def test_an_older_golden_holds_a_run_of_today(
    run: Path, goldens: Path, golden: Path, rewrite: Rewrite, age: Age, schema: int
) -> None:
    age(golden, schema)
    assert check_goldens(goldens, silent) == []
    assert check_run(run, golden, silent) == []
    rewrite(golden / "predictions.jsonl", rewrite_reference)
    assert f"with another reference than the golden's: {instances(run)[2]}" in check_run(run, golden, silent)[0]
    assert "is replaced" in bless(run, goldens)[0]
    held, made = read_golden(golden).record, read_golden(run).record
    assert config_of(held) == config_of(made), "settings that are newer than the run have their defaults"
    assert held.model_copy(update={"config": made.config}) == made


def test_an_older_run_becomes_a_golden_of_its_schema(
    run: Path, goldens: Path, golden: Path, rewrite: Rewrite, age: Age
) -> None:
    age(run, 1)
    bless(run, goldens)
    assert read_golden(golden).record.schema_version == 1
    assert check_goldens(goldens, silent) == []
    rewrite(run / "scores.jsonl", lambda rows: rows[:-1])
    with pytest.raises(
        StoreError, match=r"has no row of bleu for .*older schema \(1\): move its folder away, then run"
    ):
        bless(run, goldens)


# -- finding a golden --------------------------------------------------------------------------------------------------


def test_the_golden_of_a_run_is_found_by_its_kind(run: Path, goldens: Path, golden: Path, rewrite: Rewrite) -> None:
    assert find_golden(finished(run), goldens) == golden
    shutil.copytree(golden, goldens / "another")
    with pytest.raises(
        ConfigError, match=f"several goldens are of demo rag recency: another, {NAME}; say .* --against"
    ):
        find_golden(finished(run), goldens)
    assert find_golden(finished(run), goldens, "another") == goldens / "another"
    with pytest.raises(ConfigError, match=f"no golden 'absent' in .*; there are: another, {NAME}"):
        find_golden(finished(run), goldens, "absent")
    rewrite(run / "run.json", lambda record: record["config"].update(method="pag"))
    with pytest.raises(ConfigError, match=r"no golden in .* is of demo pag recency"):
        find_golden(finished(run), goldens)


# -- moving a golden ---------------------------------------------------------------------------------------------------


def test_a_real_run_becomes_a_golden_that_holds_it(shop: Path, tmp_path: Path) -> None:
    """Its data set's place and its folder of results are not in the golden, which is green all the same."""
    settings = {"dataset": str(shop), "method": "copy", "metrics": ["rouge", "bleu"], "resamples": 10, "window": 7}
    job = Job.of(build(settings, {"results": str(tmp_path / "anna"), "notes": ["A shop."]}))
    execute([job], silent)
    goldens = tmp_path / "golden"
    (line,) = bless(job.folder, goldens)
    assert line == f"golden shop-copy is new: 3 instances, rouge, bleu; {job.folder.name}"
    assert check_goldens(goldens, silent) == []
    assert check_run(job.folder, find_golden(finished(job.folder), goldens), silent) == []
    record = (goldens / "shop-copy" / "run.json").read_text()
    assert str(tmp_path) not in record
    assert str(shop.parent) not in record
    assert "anna" not in record
    assert "127.0.0.1" not in record
    assert "A shop." in record
    config = read_golden(goldens / "shop-copy").config
    assert (config.dataset, config.method, config.resamples) == ("shop", "copy", 10)
    assert config.window != 7, "what changes no text is the default's"


def test_a_run_that_was_scored_again_with_other_options_is_blessed_with_them(shop: Path, tmp_path: Path) -> None:
    for rouge in ({}, {"average": "bootstrap_median"}):
        settings = {"dataset": str(shop), "method": "copy", "metrics": ["rouge"], "resamples": 10, "rouge": rouge}
        job = Job.of(build(settings, {"results": str(tmp_path / "results")}))
        execute([job], silent)
    goldens = tmp_path / "golden"
    bless(job.folder, goldens)
    assert read_golden(goldens / "shop-copy").metrics == {"rouge": Rouge(average="bootstrap_median")}
    assert check_goldens(goldens, silent) == []


def test_a_metric_that_reads_the_data_needs_data_that_others_have(shop: Path, tmp_path: Path) -> None:
    settings = {"dataset": str(shop), "method": "copy", "metrics": ["rouge", "copying"], "resamples": 10}
    job = Job.of(build(settings, {"results": str(tmp_path / "results")}))
    execute([job], silent)
    with pytest.raises(
        ConfigError, match=rf"cannot be blessed: copying must read the data .* {shop} .*; take the demo or a hub id"
    ):
        bless(job.folder, tmp_path / "golden")
    assert not (tmp_path / "golden").exists()


@pytest.mark.parametrize("left", [".gitkeep", f".{NAME}.new"])
def test_the_first_golden_among_hidden_files(run: Path, tmp_path: Path, left: str) -> None:
    (tmp_path / "first" / left).mkdir(parents=True)
    (line, *_) = bless(run, tmp_path / "first")
    assert line.startswith(f"golden {NAME} is new: ")


def test_a_blessing_killed_between_its_renames_leaves_the_old_golden(
    run: Path, goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return real(self, target)

    def kill_a_blessing() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            bless(run, goldens)

    with pytest.raises(KeyboardInterrupt):
        kill_a_blessing()
    assert not golden.exists()
    assert check_goldens(goldens, silent) == []
    with pytest.raises(KeyboardInterrupt):
        kill_a_blessing()
    assert not golden.exists()
    assert "is replaced" in bless(run, goldens)[0]
    assert [path.name for path in goldens.iterdir()] == [NAME]


def test_what_tells_of_the_machine_is_left_out_of_the_options_too(
    run: Path, goldens: Path, golden: Path, rewrite: Rewrite
) -> None:
    options = {"bleu": {}, "judge": {"openai": {"base_url": "http://127.0.0.1:8000", "served_model": "m"}}}
    rewrite(run / "summary.json", lambda summary: summary.update(metric_options=options, fidelity="paper"))
    bless(run, goldens)
    stored = read_golden(golden).summary
    assert stored.metric_options == {"bleu": {}, "judge": {"openai": {"served_model": "m"}}}
    assert stored.fidelity == "paper"


def test_blessing_tells_what_changes(run: Path, goldens: Path, golden: Path, rewrite: Rewrite, sign: Sign) -> None:
    about = f"golden {NAME} is replaced: {len(instances(run))} instances, rouge, bleu; {finished(run).name}"
    assert bless(run, goldens) == [about, "nothing in it changes"]
    scores = finished(golden).summary.scores["Books"]
    value = scores["rouge1"].value
    name = instances(golden)[0]

    def change(summary: Row) -> None:
        summary["scores"]["Books"]["rouge1"]["value"] = value + 0.01

    rewrite(run / "summary.json", change)
    sign(golden, "tok:13a", "tok:intl")
    rewrite(golden / "predictions.jsonl", lambda rows: [rows[0] | {"prediction": "Another text."}, *rows[1:]])
    lines = bless(run, goldens)
    assert lines[0] == about
    assert lines[1].startswith("bleu: the signature changed: tok:intl -> tok:13a")
    assert lines[2:] == [f"instances with another text: {name}", f"Books rouge1: {value:.4f} -> {value + 0.01:.4f}"]
    # run.json has today's settings, with their defaults.
    held, made = (one.model_copy(update={"files": {}}) for one in (read_golden(golden).summary, finished(run).summary))
    assert held == made
    assert [path.name for path in goldens.iterdir()] == [NAME], "nothing is left beside it"


def test_a_damaged_golden_can_be_replaced(run: Path, goldens: Path, golden: Path) -> None:
    (golden / "summary.json").write_text("{")
    lines = bless(run, goldens, NAME)
    assert lines[1].startswith(f"the old one could not be compared: golden {NAME} is damaged")
    assert check_goldens(goldens, silent) == []


def unfinished(run: Path, _: Rewrite) -> None:
    (run / "summary.json").unlink()


def without_a_row(run: Path, rewrite: Rewrite) -> None:
    rewrite(run / "scores.jsonl", lambda rows: rows[:-1])


def of_other_texts(run: Path, rewrite: Rewrite) -> None:
    rewrite(run / "predictions.jsonl", swap)


def without_metrics(run: Path, rewrite: Rewrite) -> None:
    rewrite(run / "summary.json", lambda summary: summary["signatures"].clear())


def with_a_local_metric(run: Path, rewrite: Rewrite) -> None:
    def change(summary: Row) -> None:
        summary["signatures"]["bertscore"] = "bertscore|layer:6"
        summary["metric_options"] = {"bertscore": {"model": "/models/led"}}

    rewrite(run / "summary.json", change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unfinished, "is not complete; run its command again"),
        (without_a_row, r"has no row of bleu for .*\. Run its command again, which mends it"),
        (of_other_texts, r"cannot be blessed: instances whose stored scores were not made .* again to score it"),
        (without_metrics, "cannot be blessed: it is not scored"),
        (with_a_local_metric, "cannot be blessed: bertscore.model is /models/led, a place on this machine alone"),
    ],
)
def test_what_cannot_be_blessed_leaves_the_golden_alone(
    run: Path, goldens: Path, golden: Path, rewrite: Rewrite, change: Callable[[Path, Rewrite], None], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in golden.iterdir()}
    change(run, rewrite)
    with pytest.raises(BenchError, match=message):
        bless(run, goldens)
    assert {path.name: path.read_bytes() for path in golden.iterdir()} == before


def test_scores_of_another_version_are_not_blessed(run: Path, goldens: Path, sign: Sign) -> None:
    sign(run, "tok:13a", "tok:intl")
    with pytest.raises(
        StoreError, match=r"cannot be blessed: bleu: the signature changed: tok:intl -> tok:13a .* again"
    ):
        bless(run, goldens)


@pytest.mark.parametrize("name", ["../elsewhere", ".hidden", "", "a b", "a/b"])
def test_a_golden_has_a_plain_name(run: Path, goldens: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--name .*: use letters, digits"):
        bless(run, goldens, name)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_blessing_that_fails_half_way_leaves_the_old_golden(
    run: Path, goldens: Path, golden: Path, rewrite: Rewrite
) -> None:
    before = {path.name: path.read_bytes() for path in golden.iterdir()}

    def louder(rows: list[Row]) -> None:
        for row in rows:
            row["statistics"] = [entry * 1.1 for entry in row["statistics"]]

    rewrite(run / "scores.jsonl", louder)
    assert len(before["predictions.jsonl"]) > 60_000
    with room_for(60_000), pytest.raises(StoreError, match=r"predictions\.jsonl cannot be written: .* make room"):
        bless(run, goldens)
    assert {path.name: path.read_bytes() for path in golden.iterdir()} == before
    assert check_goldens(goldens, silent) == []
    bless(run, goldens)
    assert [path.name for path in goldens.iterdir()] == [NAME]
    np.testing.assert_array_equal(finished(golden).rows("rouge"), finished(run).rows("rouge"))


def test_a_golden_stays_with_its_kind_of_run(run: Path, golden: Path, tmp_path: Path, rewrite: Rewrite) -> None:
    rewrite(run / "run.json", lambda record: record["config"].update(method="pag"))
    with pytest.raises(ConfigError, match=f"golden {golden.name} is of .*, the run of .* pag.*; give another --name"):
        bless(run, golden.parent, golden.name)

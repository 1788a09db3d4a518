"""The gate: what is green, that each planted drift is told by name, and how a golden moves."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from bench import drift
from bench.config import build
from bench.errors import BenchError, ConfigError, StoreError
from bench.execute import execute
from bench.finished import finished
from bench.protocols import Array
from bench.runner import Run
from metrics.rouge import Rouge

GOLDENS = Path(__file__).parents[1] / "results" / "golden"
NAME = "demo-rag-recency"
CHEAP = ("rouge", "bleu")

Row = dict[str, Any]


def edit_json(path: Path, change: Callable[[Row], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(path: Path, change: Callable[[list[Row]], list[Row] | None]) -> None:
    """Change the rows of a file in place, or give others."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    changed = change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows if changed is None else changed)))


@pytest.fixture
def goldens(tmp_path: Path) -> Path:
    """A folder with the shipped golden, of whose metrics and options only two cheap metrics are left."""
    golden = shutil.copytree(GOLDENS / NAME, tmp_path / "golden" / NAME)

    def cheap(summary: Row) -> None:
        for name in summary["signatures"].keys() - set(CHEAP):
            del summary["signatures"][name]
        summary.update(fidelity="paper", metric_options={})
        for scores in summary["scores"].values():
            for column in scores.keys() - {"rouge1", "rougeL", "bleu"}:
                del scores[column]

    edit_json(golden / "summary.json", cheap)
    edit_json(golden / "run.json", lambda record: record["config"].update(metrics=CHEAP, options={}))
    edit_rows(golden / "scores.jsonl", lambda rows: [row for row in rows if row["metric"] in CHEAP])
    return tmp_path / "golden"


@pytest.fixture
def golden(goldens: Path) -> Path:
    return goldens / NAME


@pytest.fixture
def run(golden: Path, tmp_path: Path) -> Path:
    """A run that made the golden's texts: the same files."""
    return shutil.copytree(golden, tmp_path / "run")


def instances(folder: Path) -> list[str]:
    return [row["instance"] for row in finished(folder).predictions]


def silent(text: str) -> None:
    pass


# -- (1) this code and these packages ----------------------------------------------------------------------------------


def test_the_shipped_goldens_are_green() -> None:
    said: list[str] = []
    assert drift.check_goldens(GOLDENS, said.append) == []
    assert [line.split(":")[0] for line in said] == [f"golden {path.name}" for path in drift.golden_folders(GOLDENS)]
    signatures = finished(GOLDENS / NAME).summary["signatures"]
    assert {"rouge", "meteor", "bleu", "bertscore"} <= signatures.keys()


def test_the_shipped_goldens_are_small_and_tell_nothing_of_a_machine() -> None:
    for folder in drift.golden_folders(GOLDENS):
        assert sorted(path.name for path in folder.iterdir()) == [
            "predictions.jsonl",
            "run.json",
            "scores.jsonl",
            "summary.json",
        ]
        assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
        record = (folder / "run.json").read_text()
        assert '"/' not in record
        assert "://" not in record


def test_an_untouched_golden_is_green(goldens: Path) -> None:
    assert drift.check_goldens(goldens, silent) == []


def test_another_version_of_a_package_is_told(goldens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    version = real("sacrebleu")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9" if name == "sacrebleu" else real(name))
    (finding,) = drift.check_goldens(goldens, silent)
    assert finding.startswith(
        f"golden {NAME}: bleu: the signature changed: version:{version} -> version:9.9 (was bleu|nrefs:1|"
    )
    assert finding.endswith("|version:9.9)")


def test_a_stored_signature_that_was_changed_is_told(goldens: Path, golden: Path) -> None:
    def change(text: str) -> str:
        return text.replace("tok:13a", "tok:intl")

    for path in (golden / "summary.json", golden / "scores.jsonl"):
        path.write_text(change(path.read_text()))
    (finding,) = drift.check_goldens(goldens, silent)
    assert "bleu: the signature changed: tok:intl -> tok:13a" in finding


def test_a_metric_that_gives_half_a_percent_more_is_told_with_its_rows(
    goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Rouge.rows
    monkeypatch.setattr(Rouge, "rows", lambda self, *texts: real(self, *texts) * 1.005)
    (finding,) = drift.check_goldens(goldens, silent)
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

    def moved(self: Rouge, *texts: Any) -> Array:
        rows = real(self, *texts)
        rows[3, 1] += change
        return rows

    monkeypatch.setattr(Rouge, "rows", moved)
    findings = drift.check_goldens(goldens, silent)
    assert bool(findings) == red
    if red:
        assert f"rouge: 1 of {len(instances(golden))} rows differ, most that of {instances(golden)[3]}" in findings[0]


def test_a_score_of_the_same_rows_that_moved_is_told(goldens: Path, golden: Path) -> None:
    def change(summary: Row) -> None:
        summary["scores"]["Books"]["bleu"]["value"] += 2e-6
        summary["scores"]["CDs_and_Vinyl"]["rougeL"]["low"] -= 2e-6

    edit_json(golden / "summary.json", change)
    rouge, bleu = drift.check_goldens(goldens, silent)
    assert "rouge: the score of the same rows changed: CDs_and_Vinyl rougeL was 0." in rouge
    assert "bleu: the score of the same rows changed: Books bleu was " in bleu


def test_a_score_that_is_stored_and_no_longer_given_is_told(
    goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_json(golden / "summary.json", lambda summary: summary["scores"]["Books"].update(rouge2={"value": 0.1}))
    (finding,) = drift.check_goldens(goldens, silent)
    assert finding == f"golden {NAME}: Books has a stored rouge2, which no metric gives now"
    real = drift.category_scores

    def less(category: str, *others: Any) -> dict[str, dict[str, float]]:
        return {name: cell for name, cell in real(category, *others).items() if (category, name) != ("Books", "bleu")}

    monkeypatch.setattr(drift, "category_scores", less)
    _, finding = drift.check_goldens(goldens, silent)
    assert finding == f"golden {NAME}: bleu: Books has a stored bleu, which the metric does not give now"


def swap(rows: list[Row]) -> None:
    rows[1]["prediction"], rows[4]["prediction"] = rows[4]["prediction"], rows[1]["prediction"]


def rewrite_reference(rows: list[Row]) -> None:
    rows[2]["reference"] += " Indeed."


def test_two_swapped_predictions_are_told(goldens: Path, golden: Path) -> None:
    edit_rows(golden / "predictions.jsonl", swap)
    names = instances(golden)
    foreign, rouge, bleu = drift.check_goldens(goldens, silent)
    assert foreign.endswith(
        f"instances whose stored scores were not made from the texts in predictions.jsonl: {names[1]}, {names[4]}"
    )
    for finding, metric in ((rouge, "rouge"), (bleu, "bleu")):
        assert f"{metric}: 2 of {len(names)} rows differ, most that of " in finding


def test_a_changed_reference_is_told(goldens: Path, golden: Path) -> None:
    edit_rows(golden / "predictions.jsonl", rewrite_reference)
    findings = drift.check_goldens(goldens, silent)
    assert all(instances(golden)[2] in finding for finding in findings)
    assert len(findings) == 3


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl", "scores.jsonl", "summary.json"])
def test_a_torn_file_is_damage_not_drift(goldens: Path, golden: Path, name: str) -> None:
    path = golden / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(StoreError, match=rf"golden {NAME} is damaged: .*Take it from git again") as error:
        drift.check_goldens(goldens, silent)
    assert "start over" not in str(error.value)


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl", "scores.jsonl", "summary.json"])
def test_a_file_that_is_not_there_is_damage(goldens: Path, golden: Path, name: str) -> None:
    (golden / name).unlink()
    with pytest.raises(StoreError, match=f"golden {NAME} is damaged: "):
        drift.check_goldens(goldens, silent)


def test_a_golden_that_lacks_an_instance_is_damaged(goldens: Path, golden: Path) -> None:
    missing = instances(golden)[6]
    edit_rows(golden / "predictions.jsonl", lambda rows: rows[:6] + rows[7:])
    with pytest.raises(StoreError, match=f"damaged: its predictions.jsonl lacks {missing}. Take it"):
        drift.check_goldens(goldens, silent)
    edit_rows(golden / "scores.jsonl", lambda rows: [row for row in rows if row["instance"] != missing])
    with pytest.raises(StoreError, match=r"damaged: its predictions.jsonl holds \d+ instances, its summary.json tells"):
        drift.check_goldens(goldens, silent)


def test_a_gate_without_goldens_is_no_gate(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no golden in .*; make one of a finished run with: bench bless RUN"):
        drift.check_goldens(tmp_path / "none", silent)


# -- (2) a run against its golden --------------------------------------------------------------------------------------


def check(run: Path, golden: Path, minimum: float = drift.MINIMUM) -> list[str]:
    return [
        finding.removeprefix(f"against golden {NAME}: ") for finding in drift.check_run(run, golden, silent, minimum)
    ]


def test_the_same_run_is_green_and_what_was_compared_is_said(run: Path, golden: Path) -> None:
    said: list[str] = []
    assert drift.check_run(run, golden, said.append) == []
    assert f"golden {NAME}: 9 scores of {len(instances(run))} instances compared." in said[0]
    assert "a change counts beyond 5." in said[0]
    assert "1 time in 10,000, and beyond 0.25% of the score" in said[0]


def scale(run: Path, metric: str, entries: slice, factor: float) -> None:
    def change(rows: list[Row]) -> None:
        for row in rows:
            if row["metric"] == metric:
                row["statistics"][entries] = (np.array(row["statistics"][entries]) * factor).tolist()

    edit_rows(run / "scores.jsonl", change)


@pytest.mark.parametrize(
    ("metric", "entries", "column"),
    # Of BLEU's statistics the first four are the matches: more of them make the score that much higher.
    [("rouge", slice(0, 1), "rouge1"), ("rouge", slice(1, 2), "rougeL"), ("bleu", slice(0, 4), "bleu")],
)
def test_half_a_percent_in_one_metric_is_told(
    run: Path, golden: Path, metric: str, entries: slice, column: str
) -> None:
    scale(run, metric, entries, 1.005)
    findings = check(run, golden)
    assert findings
    for finding in findings:
        category = finding.split()[0]
        score = finished(golden).summary["scores"][category][column]["value"]
        assert finding.startswith(f"{category} {column} {score:.4f} -> {score * 1.005:.4f} (+0.50%, +")
        assert "more than chance explains" in finding


def test_a_change_below_the_minimum_is_no_finding(run: Path, golden: Path) -> None:
    scale(run, "rouge", slice(0, 1), 0.998)
    assert check(run, golden) == []
    assert len(check(run, golden, minimum=0.0015)) == 3


def test_a_change_within_chance_is_no_finding(run: Path, golden: Path) -> None:
    """Half of the texts better by a tenth and half as much worse, but for one: larger than the minimum, not certain."""

    def change(rows: list[Row]) -> None:
        chosen = [row for row in rows if row["metric"] == "rouge"]
        for number, row in enumerate(chosen):
            row["statistics"][0] *= 1.1 if number % 2 else 0.9

    edit_rows(run / "scores.jsonl", change)
    said: list[str] = []
    assert drift.check_run(run, golden, said.append, minimum=0) == []
    assert "+0.0 standard errors" not in said[1]


def test_a_changed_signature_is_told(run: Path, golden: Path) -> None:
    for path in (run / "summary.json", run / "scores.jsonl"):
        path.write_text(path.read_text().replace("stem:no", "stem:porter"))
    scale(run, "rouge", slice(0, 2), 2.0)
    (finding,) = check(run, golden)
    assert finding.startswith("rouge: the signature changed: stem:no -> stem:porter (was rouge|types"), (
        "scores under other signatures are not compared"
    )


def test_a_metric_that_was_not_scored_is_told(run: Path, golden: Path) -> None:
    edit_json(run / "summary.json", lambda summary: summary["signatures"].pop("bleu"))
    assert check(run, golden) == ["bleu: there are no scores of it, only rouge"]


def test_a_score_that_its_metric_does_not_give_is_told(run: Path, golden: Path) -> None:
    edit_json(run / "summary.json", lambda summary: summary["scores"]["Books"].pop("bleu"))
    assert check(run, golden) == ["bleu: Books has no bleu, which the golden has"]


def test_missing_instances_are_named_and_more_take_no_part(run: Path, golden: Path) -> None:
    names = instances(golden)

    def change(rows: list[Row]) -> None:
        rows[7]["instance"] = "Books/test/NOBODY"

    edit_rows(run / "predictions.jsonl", change)
    edit_rows(run / "scores.jsonl", lambda rows: [*rows, *({**row, "instance": "Books/test/NOBODY"} for row in rows)])
    found = check(run, golden)
    assert found[0] == f"instances missing in the run: {names[7]}"
    assert not [line for line in found if "unknown" in line]
    edit_rows(run / "predictions.jsonl", lambda rows: rows[9:])
    first, *_ = check(run, golden)
    assert first == f"instances missing in the run: {', '.join(names[:5])} and 4 more"


def test_one_missing_instance_is_all_that_is_told(run: Path, golden: Path) -> None:
    edit_rows(run / "predictions.jsonl", lambda rows: rows[:-1])
    assert check(run, golden) == [f"instances missing in the run: {instances(golden)[-1]}"]


def test_swapped_predictions_do_not_fit_their_scores(run: Path, golden: Path) -> None:
    edit_rows(run / "predictions.jsonl", swap)
    names = instances(run)
    assert check(run, golden) == [
        f"instances whose stored scores were not made from the texts in predictions.jsonl: {names[1]}, {names[4]}"
    ]


def test_a_reference_that_is_not_the_goldens_is_told(run: Path, golden: Path) -> None:
    edit_rows(run / "predictions.jsonl", rewrite_reference)
    assert check(run, golden)[0] == f"instances with another reference than the golden's: {instances(golden)[2]}"


def test_a_run_that_is_not_complete_is_no_drift(run: Path, golden: Path) -> None:
    (run / "summary.json").unlink()
    with pytest.raises(StoreError, match="is not complete"):
        check(run, golden)


def test_a_minimum_in_percent_is_refused(run: Path, golden: Path) -> None:
    with pytest.raises(ConfigError, match="--minimum 25: give a share"):
        check(run, golden, minimum=25)


def test_the_errors_allowed_are_students_for_the_whole_family() -> None:
    for comparisons, users in ((1, 40), (48, 32), (15, 168)):
        tail = scipy.stats.t.sf(drift.errors_allowed(comparisons, users), users - 1)
        assert 2 * tail * comparisons == pytest.approx(0.0001)
    assert drift.errors_allowed(3, 1) == np.inf


def test_the_golden_of_a_run_is_found_by_its_kind(run: Path, goldens: Path, golden: Path) -> None:
    assert drift.find_golden(finished(run), goldens) == golden
    shutil.copytree(golden, goldens / "another")
    with pytest.raises(
        ConfigError, match=f"several goldens are of demo rag recency: another, {NAME}; say .* --against"
    ):
        drift.find_golden(finished(run), goldens)
    assert drift.find_golden(finished(run), goldens, "another") == goldens / "another"
    with pytest.raises(ConfigError, match=f"no golden 'absent' in .*; there are: another, {NAME}"):
        drift.find_golden(finished(run), goldens, "absent")
    edit_json(run / "run.json", lambda record: record["config"].update(method="pag"))
    with pytest.raises(ConfigError, match=r"no golden in .* is of demo pag recency"):
        drift.find_golden(finished(run), goldens)


# -- moving a golden ---------------------------------------------------------------------------------------------------


def test_a_real_run_becomes_a_golden_that_holds_it(shop: Path, tmp_path: Path) -> None:
    """Its data set's place and its folder of results are not in the golden, which is green all the same."""
    settings = {"dataset": str(shop), "method": "copy", "metrics": ["rouge", "bleu"], "resamples": 10, "window": 7}
    run = Run(build(settings, {"results": str(tmp_path / "anna"), "notes": ["A shop."]}))
    execute([run], silent)
    goldens = tmp_path / "golden"
    (line,) = drift.bless(run.folder, goldens)
    assert line == f"golden shop-copy is new: 3 instances, rouge, bleu; {run.folder.name}"
    assert drift.check_goldens(goldens, silent) == []
    assert drift.check_run(run.folder, drift.find_golden(finished(run.folder), goldens), silent) == []
    record = (goldens / "shop-copy" / "run.json").read_text()
    assert str(tmp_path) not in record
    assert str(shop.parent) not in record
    assert "anna" not in record
    assert "127.0.0.1" not in record
    assert "A shop." in record
    config = drift.read_golden(goldens / "shop-copy").config
    assert (config.dataset, config.method, config.resamples) == ("shop", "copy", 10)
    assert config.window != 7, "what changes no text is the default's"


def test_a_run_that_was_scored_again_with_other_options_is_blessed_with_them(shop: Path, tmp_path: Path) -> None:
    for rouge in ({}, {"average": "bootstrap_median"}):
        settings = {"dataset": str(shop), "method": "copy", "metrics": ["rouge"], "resamples": 10, "rouge": rouge}
        run = Run(build(settings, {"results": str(tmp_path / "results")}))
        execute([run], silent)
    goldens = tmp_path / "golden"
    drift.bless(run.folder, goldens)
    assert drift.read_golden(goldens / "shop-copy").metrics == {"rouge": Rouge(average="bootstrap_median")}
    assert drift.check_goldens(goldens, silent) == []


def test_a_metric_that_reads_the_data_needs_data_that_others_have(shop: Path, tmp_path: Path) -> None:
    settings = {"dataset": str(shop), "method": "copy", "metrics": ["rouge", "copying"], "resamples": 10}
    run = Run(build(settings, {"results": str(tmp_path / "results")}))
    execute([run], silent)
    with pytest.raises(
        ConfigError, match=rf"cannot be blessed: copying must read the data .* {shop} .*; take the demo or a hub id"
    ):
        drift.bless(run.folder, tmp_path / "golden")
    assert not (tmp_path / "golden").exists()


@pytest.mark.parametrize("left", [".gitkeep", f".{NAME}.new"])
def test_the_first_golden_among_hidden_files(run: Path, tmp_path: Path, left: str) -> None:
    (tmp_path / "first" / left).mkdir(parents=True)
    (line, *_) = drift.bless(run, tmp_path / "first")
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
            drift.bless(run, goldens)

    with pytest.raises(KeyboardInterrupt):
        kill_a_blessing()
    assert not golden.exists()
    assert drift.check_goldens(goldens, silent) == []
    with pytest.raises(KeyboardInterrupt):
        kill_a_blessing()
    assert not golden.exists()
    assert "is replaced" in drift.bless(run, goldens)[0]
    assert [path.name for path in goldens.iterdir()] == [NAME]


def test_what_tells_of_the_machine_is_left_out_of_the_options_too(run: Path, goldens: Path, golden: Path) -> None:
    options = {"bleu": {}, "judge": {"openai": {"base_url": "http://127.0.0.1:8000", "served_model": "m"}}}
    edit_json(run / "summary.json", lambda summary: summary.update(metric_options=options, fidelity="paper"))
    drift.bless(run, goldens)
    stored = drift.read_golden(golden).summary
    assert stored["metric_options"] == {"bleu": {}, "judge": {"openai": {"served_model": "m"}}}
    assert stored["fidelity"] == "paper"


def test_blessing_tells_what_changes(run: Path, goldens: Path, golden: Path) -> None:
    about = f"golden {NAME} is replaced: {len(instances(run))} instances, rouge, bleu; {finished(run).name}"
    assert drift.bless(run, goldens) == [about, "nothing in it changes"]
    scores = finished(golden).summary["scores"]["Books"]
    value = scores["rouge1"]["value"]
    name = instances(golden)[0]

    def change(summary: Row) -> None:
        summary["scores"]["Books"]["rouge1"]["value"] = value + 0.01

    edit_json(run / "summary.json", change)
    for path in (golden / "summary.json", golden / "scores.jsonl"):
        path.write_text(path.read_text().replace("tok:13a", "tok:intl"))
    edit_rows(golden / "predictions.jsonl", lambda rows: [rows[0] | {"prediction": "Another text."}, *rows[1:]])
    lines = drift.bless(run, goldens)
    assert lines[0] == about
    assert lines[1].startswith("bleu: the signature changed: tok:intl -> tok:13a")
    assert lines[2:] == [f"instances with another text: {name}", f"Books rouge1: {value:.4f} -> {value + 0.01:.4f}"]
    assert drift.read_golden(golden).summary == finished(run).summary
    assert [path.name for path in goldens.iterdir()] == [NAME], "nothing is left beside it"


def test_a_damaged_golden_can_be_replaced(run: Path, goldens: Path, golden: Path) -> None:
    (golden / "summary.json").write_text("{")
    lines = drift.bless(run, goldens, NAME)
    assert lines[1].startswith(f"the old one could not be compared: golden {NAME} is damaged")
    assert drift.check_goldens(goldens, silent) == []


def unfinished(run: Path) -> None:
    (run / "summary.json").unlink()


def without_a_row(run: Path) -> None:
    edit_rows(run / "scores.jsonl", lambda rows: rows[:-1])


def of_other_texts(run: Path) -> None:
    edit_rows(run / "predictions.jsonl", swap)


def of_another_version(run: Path) -> None:
    for path in (run / "summary.json", run / "scores.jsonl"):
        path.write_text(path.read_text().replace("tok:13a", "tok:intl"))


def without_metrics(run: Path) -> None:
    edit_json(run / "summary.json", lambda summary: summary["signatures"].clear())


def with_a_local_metric(run: Path) -> None:
    def change(summary: Row) -> None:
        summary["signatures"]["bertscore"] = "bertscore|layer:6"
        summary["metric_options"] = {"bertscore": {"model": "/models/led"}}

    edit_json(run / "summary.json", change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unfinished, "is not complete; run its command again"),
        (without_a_row, r"lacks bleu's row of .*; run it again to score it"),
        (of_other_texts, r"cannot be blessed: instances whose stored scores were not made .* again to score it"),
        (
            of_another_version,
            "cannot be blessed: bleu: the signature changed: tok:intl -> tok:13a .* again to score it",
        ),
        (without_metrics, "cannot be blessed: it is not scored"),
        (with_a_local_metric, "cannot be blessed: bertscore.model is /models/led, a place on this machine alone"),
    ],
)
def test_what_cannot_be_blessed_leaves_the_golden_alone(
    run: Path, goldens: Path, golden: Path, change: Callable[[Path], None], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in golden.iterdir()}
    change(run)
    with pytest.raises(BenchError, match=message):
        drift.bless(run, goldens)
    assert {path.name: path.read_bytes() for path in golden.iterdir()} == before


@pytest.mark.parametrize("name", ["../elsewhere", ".hidden", "", "a b", "a/b"])
def test_a_golden_has_a_plain_name(run: Path, goldens: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--name .*: use letters, digits"):
        drift.bless(run, goldens, name)


def test_a_blessing_that_fails_half_way_leaves_the_old_golden(
    run: Path, goldens: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in golden.iterdir()}
    real = drift.write_atomically

    def full(path: Path, content: str | bytes) -> None:
        if path.name == "scores.jsonl":
            raise StoreError("no room")
        real(path, content)

    monkeypatch.setattr(drift, "write_atomically", full)
    scale(run, "rouge", slice(0, 2), 1.1)
    with pytest.raises(StoreError, match="no room"):
        drift.bless(run, goldens)
    assert {path.name: path.read_bytes() for path in golden.iterdir()} == before
    assert drift.check_goldens(goldens, silent) == []
    monkeypatch.undo()
    drift.bless(run, goldens)
    assert [path.name for path in goldens.iterdir()] == [NAME]
    np.testing.assert_array_equal(finished(golden).rows("rouge"), finished(run).rows("rouge"))


def test_a_golden_stays_with_its_kind_of_run(run: Path, golden: Path, tmp_path: Path) -> None:
    edit_json(run / "run.json", lambda record: record["config"].update(method="pag"))
    with pytest.raises(ConfigError, match=f"golden {golden.name} is of .*, the run of .* pag.*; give another --name"):
        drift.bless(run, golden.parent, golden.name)

"""`bench compare`: what is paired, what is refused, and what a reader is shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.batch import Batch
from bench.cli import main
from bench.comparison import Comparison, Pair, compare, differences, render
from bench.config import build, read_config
from bench.errors import ConfigError, DataError
from bench.execute import execute
from bench.finished import FinishedRun, finished
from bench.job import Job
from bench.metrics.rouge import Rouge
from bench.protocols import Array
from bench.registry import create
from bench.results import Prediction, RunRecord, Summary
from bench.scoring import score
from bench.statistics import Difference, holm, paired
from bench.store import RunStore

WORDS = ["kite", "boat", "drum", "map", "red", "blue", "green", "old", "flies", "floats", "sounds", "leads"]
USERS = [f"u{number}" for number in range(9)]
INSTANCES = [
    (f"{category}/test/{user}/{k}", category, user) for category in ("Toys", "Maps") for user in USERS for k in (0, 1)
]


def words(seed: str) -> str:
    generator = np.random.default_rng(list(seed.encode()))
    return " ".join(generator.choice(WORDS, size=generator.integers(6, 12)))


REFERENCES = {instance: words(instance) for instance, _, _ in INSTANCES}


@dataclass(frozen=True)
class Made:
    """What a run's folder is made of; `texts` are by instance, in the order of predictions.jsonl."""

    texts: dict[str, str]
    metrics: Sequence[str] = ("rouge", "bleu")
    settings: dict[str, Any] = field(default_factory=lambda: {"method": "nonperso", "split": "test", "limit": None})
    options: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=lambda: {"Toys": "toys", "Maps": "maps"})
    identity: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    version: str = "2.3.5"

    def run(self, folder: Path) -> FinishedRun:
        """The folder as a complete run leaves it."""
        settings = self.settings | {name: None for name in ("seed", "split", "limit") if name not in self.settings}
        identity = {"settings": settings, "data": self.data, "method_code": settings["method"], "method_options": {}}
        config = {
            "method": settings["method"],
            "dataset": "shop",
            "options": self.options,
            "model": "tiny",
            "metrics": self.metrics,
        }
        record = RunRecord(
            name=folder.name,
            identity={**identity, **self.identity},
            config={**config, **self.config},
            device="CPU",
            versions={"numpy": self.version},
        )
        predictions = self._predictions()
        metrics = {name: create("metrics", name, self.options.get(name, {})) for name in self.metrics}
        with RunStore(folder, record) as store:
            store.write_predictions(predictions)
            scored = score(store, predictions, metrics, 10, lambda _: None, lambda: None)  # type: ignore[arg-type, return-value]
            store.write_summary(
                Summary(
                    name=folder.name,
                    instances=dict(Counter(row.category for row in predictions)),
                    empty_predictions=0,
                    cut_off=0,
                    calls=0,
                    prompt_tokens=0,
                    completion_tokens=0,
                    blocks_shown=0,
                    blocks_offered=0,
                    signatures=scored.signatures,
                    scores=scored.scores,
                )
            )
        return finished(folder)

    def _predictions(self) -> list[Prediction]:
        known = {instance: (category, user) for instance, category, user in INSTANCES}
        return [
            Prediction(
                instance=instance,
                category=known[instance][0],
                user=known[instance][1],
                prediction=text,
                reference=REFERENCES[instance],
                blocks_shown=0,
                blocks_offered=0,
                calls=0,
                prompt_tokens=0,
                completion_tokens=0,
                cut_off=False,
            )
            for instance, text in self.texts.items()
        ]


def writer(name: str, share: float) -> dict[str, str]:
    """Each word of a reference with the chance `share`, otherwise another."""
    texts = {}
    for instance, reference in REFERENCES.items():
        generator = np.random.default_rng(list((name + instance).encode()))
        texts[instance] = " ".join(
            word if generator.random() < share else str(generator.choice(WORDS)) for word in reference.split()
        )
    return texts


A, B = Made(writer("a", 0.2)), Made(writer("b", 0.5))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[FinishedRun, FinishedRun]:
    return A.run(tmp_path / "run-a"), B.run(tmp_path / "run-b")


def by_key(pairs: Sequence[Pair]) -> dict[tuple[str, str], Difference]:
    return {(pair.category, pair.column.name): pair.difference for pair in pairs}


def test_the_same_as_paired_on_rows_by_hand(pair: tuple[FinishedRun, FinishedRun]) -> None:
    found = by_key(differences(*pair))
    assert list(found) == [(c, column) for c in ("Toys", "Maps") for column in ("rouge1", "rougeL", "bleu")]
    assert found == by_key(compare(*pair, scores="all").lines)
    for category in ("Toys", "Maps"):
        chosen = [(instance, user) for instance, of, user in INSTANCES if of == category]
        references = [REFERENCES[instance] for instance, _ in chosen]
        users = [user for _, user in chosen]
        for name in ("rouge", "bleu"):
            metric = create("metrics", name, {})
            rows = [metric.rows(Batch([made.texts[instance] for instance, _ in chosen], references)) for made in (A, B)]
            for column, difference in paired(metric.aggregate, *rows, users).items():
                assert found[category, column] == difference
                assert difference.value > 0


def test_pairs_by_instance_and_counts_what_is_left_out(tmp_path: Path, pair: tuple[FinishedRun, FinishedRun]) -> None:
    a, b = pair
    kept = {
        instance: text for instance, text in B.texts.items() if instance not in ("Toys/test/u0/0", "Maps/test/u3/1")
    }
    shuffled = replace(B, texts=dict(reversed(kept.items()))).run(tmp_path / "shuffled")
    less_a = replace(A, texts={instance: A.texts[instance] for instance in kept}).run(tmp_path / "less-a")
    less_b = replace(B, texts=kept).run(tmp_path / "less-b")
    assert differences(a, shuffled) == differences(less_a, less_b)
    assert differences(a, shuffled) != differences(a, b)
    comparison = compare(a, shuffled)
    assert comparison.instances == {"Toys": 17, "Maps": 17}
    assert comparison.notes == ["Left out: 2 instances that only run-a has (Toys 1, Maps 1)."]
    assert compare(shuffled, a).notes == comparison.notes
    assert comparison.notes[0] in render(comparison)


def test_a_category_that_one_run_lacks(tmp_path: Path) -> None:
    toys = {instance: text for instance, text in B.texts.items() if instance.startswith("Toys")}
    b = replace(B, texts=toys, data={"Toys": "toys"}).run(tmp_path / "b")
    comparison = compare(A.run(tmp_path / "a"), b)
    assert {line.category for line in comparison.lines} == {"Toys"}
    assert comparison.notes == ["Left out: 18 instances that only a has (Maps 18)."]


def test_scores_add_up_and_p_is_adjusted_over_all_lines(pair: tuple[FinishedRun, FinishedRun]) -> None:
    lines = compare(*pair, scores="all").lines
    assert len(lines) == 6
    for line in lines:
        assert line.b - line.a == pytest.approx(line.difference.value, abs=1e-12)
    changed = [line for line in lines if line.difference.error]
    assert [line.adjusted for line in changed] == holm([line.difference.p for line in changed])
    assert all(line.adjusted == line.difference.p == 1 for line in lines if line not in changed)
    toys = [(run.predictions[:18], run.rows("rouge")[:18, 0].mean()) for run in pair]
    assert all(prediction.category == "Toys" for prediction in toys[0][0])
    assert (lines[0].a, lines[0].b) == pytest.approx((toys[0][1], toys[1][1]), abs=1e-12)


def test_a_run_and_itself(pair: tuple[FinishedRun, FinishedRun]) -> None:
    a, _ = pair
    comparison = compare(a, a)
    assert [(line.difference.value, line.difference.p, line.adjusted) for line in comparison.lines] == [(0, 1, 1)] * 4
    assert (comparison.settings, comparison.changes) == ([], [])
    assert "From A to B: nothing." in render(comparison)


# ---- the verdict


def test_the_verdict_is_over_all_instances_as_one_sample(pair: tuple[FinishedRun, FinishedRun]) -> None:
    """The user u0 of Toys is u0 of Maps."""
    found = compare(*pair, scores="bleu,rouge1").verdict
    assert (found.users, found.tests) == (9, 2)
    assert [finding.column.name for finding in found.findings] == ["bleu", "rouge1"]
    users = [user for _, _, user in INSTANCES]
    for finding, metric in zip(found.findings, ("bleu", "rouge"), strict=True):
        rows_a, rows_b = (run.rows(metric) for run in pair)
        own = paired(pair[0].metrics[metric].aggregate, rows_a, rows_b, users)[finding.column.name]
        assert finding.difference == own
        assert finding.outcome == "better"
    assert compare(pair[1], pair[0]).verdict.outcome == "worse"


def test_which_scores_decide(tmp_path: Path, pair: tuple[FinishedRun, FinishedRun]) -> None:
    """The paper's of those that both have; a score by its name, or all."""

    def asked(comparison: Comparison) -> list[str]:
        found = [finding.column.name for finding in comparison.verdict.findings]
        assert [line.column.name for line in comparison.lines if line.category == "Toys"] == found
        return found

    default = compare(*pair)
    assert (asked(default), default.others) == (["rouge1", "bleu"], ["rougeL"])
    assert "Not compared: rougeL (--scores all, or their names)." in render(default)
    assert asked(compare(*pair, scores="all")) == ["rouge1", "rougeL", "bleu"]
    assert asked(compare(*pair, scores="rougeL")) == ["rougeL"]
    # As tables call them.
    assert asked(compare(*pair, scores="BLEU, R-L")) == ["bleu", "rougeL"]
    assert compare(*pair, by="r-l").by.name == compare(*pair, by="R-L (rougeL)").by.name == "rougeL"
    for wrong in ("rougeL,rouge2", "", "rougeL,"):
        with pytest.raises(ConfigError, match="is not a score that both runs have"):
            compare(*pair, scores=wrong)
    # Those of another task's own metrics; where they are not there, any that is better one way.
    metrics = {"metrics": ["rouge", "length"]}
    for task, names in (("lamp-4", ["rouge1", "rougeL"]), ("lamp-3", ["rouge1", "rougeL"])):
        settings = {"settings": {**A.settings, "task": task}}
        runs = [replace(made, **metrics, **settings).run(tmp_path / task / name) for name, made in (("a", A), ("b", B))]
        assert asked(compare(*runs)) == names


def test_runs_of_the_same_texts(pair: tuple[FinishedRun, FinishedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = pair
    same = compare(a, a)
    assert same.verdict.outcome == "the same"
    assert same.data["verdict"]["text"] == "A and B have the same texts for all 36 instances."
    assert "of 9 users, for 36 of which both wrote the same." in " ".join(render(same).split())
    # What a model's numbers owe to the company that a text had in its batch is no difference.
    again, real = replace(a), FinishedRun.rows
    monkeypatch.setattr(FinishedRun, "rows", lambda run, name: real(run, name) * (1 + 1e-7 * (run is again)))
    assert compare(a, again).verdict.outcome == "the same"


def test_all_of_it_as_data(
    tmp_path: Path, pair: tuple[FinishedRun, FinishedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = compare(*pair, changed=2)
    for name, made in (("run-a", A), ("run-b", B)):
        made.run(tmp_path / "results" / "runs" / name)
    command = ["compare", "run-a", "run-b", "--changed", "2", "--results", str(tmp_path / "results")]
    assert main([*command, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == comparison.data
    assert data["verdict"]["text"] == comparison.verdict.words()
    (first, _), (line, *_) = data["pooled"], data["categories"]
    finding = comparison.verdict.findings[0]
    assert (first["outcome"], first["detectable"]) == ("better", finding.detectable)
    assert first["p_holm"] == finding.adjusted >= first["p"]
    assert (line["category"], line["difference"]) == ("Toys", comparison.lines[0].difference.value)
    assert [change["text_b"] for change in data["changed"]] == [change.text_b for change in comparison.changes]
    assert main([*command, "--scores", "rogue1"]) == 2
    assert "'rogue1' is not a score that both runs have; did you mean 'rouge1'?" in capsys.readouterr().err


# ---- changed instances


def test_the_instances_that_changed_most(tmp_path: Path) -> None:
    texts = dict(A.texts)
    texts["Maps/test/u4/1"] = REFERENCES["Maps/test/u4/1"]
    texts["Toys/test/u2/0"] = ""
    a, b = A.run(tmp_path / "a"), replace(A, texts=texts).run(tmp_path / "b")
    comparison = compare(a, b)
    assert comparison.by.name == "rouge1"
    up, down = comparison.changes
    assert (up.instance, up.reference) == ("Maps/test/u4/1", REFERENCES["Maps/test/u4/1"])
    assert (up.text_a, up.text_b) == (A.texts["Maps/test/u4/1"], up.reference)
    assert up.b == 1
    assert (down.instance, down.text_b, down.b) == ("Toys/test/u2/0", "", 0)
    assert up.b - up.a > down.a > 0
    assert [change.instance for change in compare(a, b, changed=1).changes] == ["Maps/test/u4/1"]
    assert compare(a, b, changed=0).changes == []
    assert "changed most" not in render(compare(a, b, changed=0))


def test_changes_by_any_column(pair: tuple[FinishedRun, FinishedRun]) -> None:
    a, b = pair
    bleu = create("metrics", "bleu", {})
    changes = compare(a, b, changed=36, by="bleu").changes
    for change in changes:
        for text, own in ((change.text_a, change.a), (change.text_b, change.b)):
            assert own == pytest.approx(float(bleu.aggregate(bleu.rows(Batch([text], [change.reference])))["bleu"]))
    sizes = [abs(change.b - change.a) for change in changes]
    assert sizes == sorted(sizes, reverse=True)
    assert [change.instance for change in changes] != [change.instance for change in compare(a, b, changed=36).changes]
    with pytest.raises(
        ConfigError, match=r"'blue' is not a score .* did you mean 'bleu'\?.*R-1 \(rouge1\), R-L \(rougeL\), BLEU"
    ):
        compare(a, b, by="blue")
    with pytest.raises(ConfigError, match="-1 changed instances"):
        compare(a, b, changed=-1)


def test_without_a_mean_the_first_column_tells_the_change(tmp_path: Path) -> None:
    runs = [replace(made, metrics=["bleu"]).run(tmp_path / name) for name, made in (("a", A), ("b", B))]
    assert compare(*runs).by.name == "bleu"


# ---- a score for which lower is better


@pytest.mark.usefixtures("example")
def test_a_score_for_which_lower_is_better_is_marked(tmp_path: Path) -> None:
    shorter = {instance: " ".join(text.split()[:4]) for instance, text in B.texts.items()}
    a = replace(A, metrics=["rouge", "size"]).run(tmp_path / "a")
    b = replace(B, metrics=["rouge", "size"], texts=shorter).run(tmp_path / "b")
    comparison = compare(a, b, changed=1, by="size", scores="rouge1,size")
    lines = [line for line in comparison.lines if line.column.name == "size"]
    assert [line.b for line in lines] == [4, 4]
    assert all(line.difference.high < 0 for line in lines)
    assert comparison.changes[0].a > comparison.changes[0].b == 4
    shown = render(comparison)
    (row,) = [text for text in shown.splitlines() if text.split()[:3] == ["Toys", "Size", "↓"]]
    assert row.split()[4:6] == ["4.0", f"{lines[0].difference.value:+.1f}"]
    note = "↓: lower is better, so a B - A below 0 says that B is better."
    assert note in shown
    alone = [replace(made, metrics=["rouge"]).run(tmp_path / name) for name, made in (("c", A), ("d", B))]
    assert "↓" not in render(compare(*alone))


def test_across_schemas_what_was_to_be_written_tells_the_data(pair: tuple[FinishedRun, FinishedRun]) -> None:
    """Each schema has its own fingerprint of the same data."""
    new, other = pair
    record = other.record.model_copy(
        update={"schema_version": 1, "identity": other.record.identity | {"data": dict.fromkeys(_data(other), "0")}}
    )
    old = replace(other, record=record)
    assert compare(new, old).lines == compare(new, other).lines
    texts = [row.model_copy(update={"reference": "another"}) for row in old.predictions]
    vars(old)["predictions"] = texts
    with pytest.raises(ConfigError, match="are of different data in "):
        compare(new, old)


def _data(run: FinishedRun) -> list[str]:
    return list(run.record.identity["data"])


def test_an_older_schema_is_said(tmp_path: Path) -> None:
    (folder,) = (Path(__file__).parent / "schema1" / "runs").iterdir()
    old = finished(folder)
    note = f"{folder.name} is of an older schema (1; this version writes 3)."
    assert compare(old, old).notes == [note]
    assert note in render(compare(old, old))


# ---- columns and refusals


def test_a_column_that_one_run_lacks_is_left_out_and_named(
    tmp_path: Path, pair: tuple[FinishedRun, FinishedRun]
) -> None:
    a, b = pair
    less = replace(B, metrics=["bleu"]).run(tmp_path / "less")
    assert differences(a, less) == [pair for pair in differences(a, b) if pair.column.name == "bleu"]
    note = "Left out: rouge1, rougeL, which only run-a is scored with."
    assert compare(a, less).notes == [note]
    assert compare(less, a).notes == [note]


def test_a_metric_with_its_own_resampling_is_said_to_differ(tmp_path: Path) -> None:
    options = {"rouge": {"average": "bootstrap_median"}}
    runs = [replace(made, options=options).run(tmp_path / name) for name, made in (("a", A), ("b", B))]
    notes = compare(*runs, by="bleu", scores="all").notes
    assert [note.partition(" is compared")[0] for note in notes] == ["R-1", "R-L"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(B, data={"Toys": "toys", "Maps": "new"}), "run-a and other are of different data in Maps;"),
        (replace(B, settings={**B.settings, "split": "val"}), "run-a is of the test split and other of the val split"),
        (
            replace(B, options={"rouge": {"average": "bootstrap_median"}}),
            r"rouge is not the same measure in both runs: '.*avg:mean.*' in run-a, '.*bootstrap_median.*' in other",
        ),
    ],
)
def test_refuses_what_cannot_be_compared(other: Made, message: str, tmp_path: Path) -> None:
    a, b = A.run(tmp_path / "run-a"), other.run(tmp_path / "other")
    with pytest.raises(ConfigError, match=message):
        compare(a, b)


def test_refuses_runs_without_a_common_metric(tmp_path: Path) -> None:
    a, b = replace(A, metrics=["rouge"]).run(tmp_path / "a"), replace(B, metrics=["bleu"]).run(tmp_path / "b")
    assert differences(a, b) == []
    with pytest.raises(ConfigError, match="a and b have no metric in common"):
        compare(a, b)


def test_refuses_runs_without_a_common_instance(tmp_path: Path) -> None:
    first, *rest = A.texts
    a = replace(A, texts={first: "one"}).run(tmp_path / "a")
    b = replace(B, texts=dict.fromkeys(rest, "two")).run(tmp_path / "b")
    assert differences(a, b) == []
    with pytest.raises(ConfigError, match="a and b have no instance in common"):
        compare(a, b)


def test_only_metrics_of_the_same_signature_are_taken(tmp_path: Path) -> None:
    a, b = A.run(tmp_path / "a"), replace(B, options={"rouge": {"average": "bootstrap_median"}}).run(tmp_path / "b")
    assert {pair.column.name for pair in differences(a, b)} == {"bleu"}


def test_where_a_metric_gives_no_score_it_is_left_out_and_said(
    pair: tuple[FinishedRun, FinishedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that refuses texts without a word of the reference, as the judge refuses answers without a score."""
    a, b = pair
    maps = np.concatenate([run.rows("rouge")[18:] for run in pair])
    alone = a.rows("rouge")[0]
    real = Rouge.aggregate

    def refusing(self: Rouge, rows: Array, weights: Array | None = None) -> Any:
        if all(any((row == other).all() for other in [*maps, alone]) for row in rows):
            raise DataError("no score")
        return real(self, rows, weights)

    monkeypatch.setattr(Rouge, "aggregate", refusing)
    comparison = compare(a, b, changed=36, by="rouge1", scores="all")
    assert {line.column.name for line in comparison.lines if line.category == "Maps"} == {"bleu"}
    assert {line.column.name for line in comparison.lines if line.category == "Toys"} == {"rouge1", "rougeL", "bleu"}
    assert comparison.notes == ["Left out: rouge in Maps, where it gives no score."]
    changed = {change.instance for change in comparison.changes}
    assert changed
    assert all(instance.startswith("Toys") for instance in changed)
    assert a.predictions[0].instance not in changed


# ---- what differs between the configurations

DPL = {"encoder": "bge-m3", "clusters": 5, "min_peers": 4}


@pytest.mark.parametrize(
    ("changes_a", "changes_b", "expected"),
    [
        ({}, {}, []),
        ({"settings": {"k": 3, "limit": None}}, {"settings": {"k": 8, "limit": 40}}, ["k 3 -> 8", "limit none -> 40"]),
        (
            {"settings": {"method": "copy"}},
            {"settings": {"method": "rag", "k": 3, "top_p": 0.9}},
            ["method copy -> rag", "only B has k 3, top_p 0.9"],
        ),
        # What nobody chose follows from the method.
        (
            {"settings": {"method": "rag"}},
            {
                "settings": {"method": "dpl"},
                "identity": {"method_options": DPL},
                "options": {"dpl": {"encoder": "bge-m3"}},
            },
            ["method rag -> dpl", "only B has dpl.encoder bge-m3"],
        ),
        # An option that only one of them sets, beside those that neither does.
        (
            {"settings": {"method": "dpl"}, "identity": {"method_options": DPL}},
            {
                "settings": {"method": "dpl"},
                "identity": {"method_options": {**DPL, "clusters": 3}},
                "options": {"dpl": {"clusters": 3}},
            },
            ["dpl.clusters 5 -> 3"],
        ),
        (
            {"settings": {"method": "dpl"}, "identity": {"method_options": DPL, "prompts": {"x": "1"}}},
            {"settings": {"method": "dpl"}, "identity": {"method_options": DPL, "prompts": {"x": "2"}}},
            ["other prompts"],
        ),
        ({"identity": {"method_code": "1"}}, {"identity": {"method_code": "2"}}, ["other method code"]),
        (
            {"identity": {"model": "hash 1", "tokenizer": "hash 1"}, "config": {"model": "one"}},
            {"identity": {"model": "hash 2", "tokenizer": "hash 2"}, "config": {"model": "two"}},
            ["model one -> two"],
        ),
        (
            {"identity": {"model": "hash 1"}, "config": {"model": "one"}},
            {"identity": {"model": "hash 2"}, "config": {"model": "one"}},
            ["other model"],
        ),
        ({"version": "2.3.5"}, {"version": "2.4.0"}, ["version of numpy 2.3.5 -> 2.4.0"]),
    ],
)
def test_says_what_differs(
    changes_a: dict[str, Any], changes_b: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    def made(changes: dict[str, Any], base: Made) -> Made:
        settings = {"method": "nonperso", "split": "test", **changes.get("settings", {})}
        return replace(base, **{**changes, "settings": settings})

    a, b = made(changes_a, A).run(tmp_path / "a"), made(changes_b, B).run(tmp_path / "b")
    comparison = compare(a, b)
    assert comparison.settings == expected
    assert ("; ".join(expected) or "nothing") in " ".join(render(comparison).split())


# ---- what is shown


def test_the_text_for_a_terminal(pair: tuple[FinishedRun, FinishedRun]) -> None:
    comparison = compare(*pair, changed=2, scores="all")
    shown = render(comparison)
    assert shown.startswith(f"A: run-a\nB: run-b\n\n{comparison.verdict.words()[:60]}")
    assert max(map(len, shown.splitlines())) <= 120
    line = next(line for line in comparison.lines if (line.category, line.column.name) == ("Maps", "bleu"))
    row = next(text for text in shown.splitlines() if text.split()[:2] == ["Maps", "BLEU"])
    difference = line.difference
    assert row.split()[2:] == [
        f"{line.a:.4f}",
        f"{line.b:.4f}",
        f"+{difference.value:.4f}",
        f"[{difference.low:+.4f},",
        f"{difference.high:+.4f}]",
        f"{difference.p:.4f}",
        f"{line.adjusted:.4f}",
    ]
    words = " ".join(shown.split())
    assert "Paired on 36 instances (Toys 18, Maps 18) of 9 users. " in words
    assert "p (Holm): adjusted for the 6 tests of this table alone" in words
    for change in comparison.changes:
        assert f"{change.instance}: R-1 {change.a:.4f} -> {change.b:.4f} ({change.b - change.a:+.4f})" in words
        for text in (f"A: {change.text_a}", f"B: {change.text_b}", f"reference: {change.reference}"):
            assert text in words


def test_long_texts_are_wrapped_and_cannot_forge_lines(tmp_path: Path) -> None:
    texts = {**A.texts, "Toys/test/u2/0": f"{REFERENCES['Toys/test/u2/0']}\nB: another\r\x1b[2J" + " kite" * 100}
    runs = A.run(tmp_path / "a"), replace(A, texts=texts).run(tmp_path / "b")
    shown = render(compare(*runs))
    assert max(map(len, shown.splitlines())) <= 120
    assert "\nB: another" not in shown
    assert "\x1b" not in shown


def test_runs_as_bench_makes_them(shop_config: Path, scripted: Any) -> None:
    jobs = [Job.of(build(read_config(str(shop_config)), {"method": method})) for method in ("copy", "rag")]
    execute(jobs, lambda _: None)
    comparison = compare(*(finished(job.folder) for job in jobs))
    assert comparison.settings[0] == "method copy -> rag"
    # What follows from asking a model or from the configuration is not told.
    assert (
        comparison.settings[1] == "only B has retriever recency, k 2, backend scripted, max_new_tokens 8, model qwen20"
    )
    assert comparison.instances == {"Toys": 3}
    assert comparison.lines[0].a > comparison.lines[0].b

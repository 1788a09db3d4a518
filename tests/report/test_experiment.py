"""An experiment file to a rendered table."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from bench import registry
from bench.config import build, read_config
from bench.context import Context
from bench.data.corpus import Corpus
from bench.errors import ConfigError
from bench.execute import execute
from bench.protocols import Properties, Steps
from bench.records import Instance
from bench.report.experiment import assemble, read_experiment, run_experiment
from bench.report.names import paper_value
from bench.runner import Run

CONTENT: dict[str, Any] = {
    "title": "A small comparison",
    "columns": ["bleu", "rouge1"],
    "groups": [
        {
            "name": "",
            "ranked": True,
            "rows": [
                {"label": "PAG", "paper": "PAG-{size}", "set": {"method": "pag", "k": 1}},
                {"label": "None", "paper": "Non-Perso-{size}", "set": {"method": "nonperso"}},
            ],
        },
        {
            "name": "Controls",
            "ranked": False,
            "rows": [{"label": "Copy", "set": {"method": "copy"}}],
        },
        {
            "name": "More",
            "ranked": False,
            "rows": [
                {"label": "RAG", "set": {"method": "rag"}},
                {"label": "Whisper", "set": {"method": "whisper"}},
            ],
        },
    ],
    "notes": ["A note of the experiment."],
    "other_methods": None,
}


@dataclass(frozen=True)
class Whisper:
    """A method of another package."""

    properties: ClassVar[Properties] = Properties(
        retrieval_augmented=False, embedded=False, inter_user=False, calls_model=False
    )

    def steps(self, instance: Instance, context: Context) -> Steps:
        yield from ()
        return "psst"


@pytest.fixture(autouse=True)
def outsider(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Whisper` is installed."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    found = EntryPoints([EntryPoint("whisper", f"{__name__}:Whisper", "bench.methods")])

    def entry_points(group: str) -> EntryPoints:
        return found.select(group=group)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    # Not in a process of its own, which would take longer to start than such small adapters to train.
    monkeypatch.setattr("bench.execute._cores_to_spare", lambda: False)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, CONTENT)


def write(folder: Path, content: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def labels(markdown: str) -> list[str]:
    rows = [line.split("|")[1].strip() for line in markdown.splitlines() if line.startswith("|")]
    return [label.strip("*") for label in rows]


def test_rows_stand_in_their_order_and_other_methods_after(
    small: Path, shop_config: Path, tmp_path: Path, scripted: Any
) -> None:
    content = CONTENT | {"groups": CONTENT["groups"][:2], "other_methods": "Other methods"}
    printed = run_experiment(str(write(tmp_path, content)), read_config(str(shop_config)))
    _, experiment = read_experiment(str(small))
    full = experiment.with_other_methods()
    methods = [(group.name, [row.label for row in group.rows]) for group in full.groups]
    others = [name for name in registry.names("methods") if name not in ("pag", "nonperso", "copy")]
    assert methods == [("", ["PAG", "None"]), ("Controls", ["Copy"]), ("Other methods", others)]
    assert {"rag", "whisper"} <= set(others)
    assert not full.groups[-1].ranked
    text = (tmp_path / "results" / "tables" / "small.md").read_text()
    found = [label for label in labels(text) if label in ("PAG", "None", "Copy", "rag", "whisper")]
    assert found == ["PAG", "None", "Copy", "rag", "whisper"]
    assert "psst" not in text
    for suffix in (".tex", ".md"):
        assert f"wrote {tmp_path / 'results' / 'tables' / f'small{suffix}'}" in printed
    assert "A small comparison" in printed[0]


def test_only_what_is_missing_is_computed(small: Path, shop_config: Path, scripted: Any) -> None:
    settings = read_config(str(shop_config))
    execute([Run(build(settings, {"method": "nonperso"}))], lambda _: None)
    assert [call.key[1] for call in scripted.calls] == ["nonperso_review"] * 3
    scripted.calls.clear()
    first = run_experiment(str(small), settings)
    assert {call.key[1] for call in scripted.calls} == {"pag_profile", "pag_review", "rag_review"}
    scripted.calls.clear()
    assert run_experiment(str(small), settings) == first
    assert scripted.calls == []


def test_without_other_methods(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    path = write(tmp_path, {name: value for name, value in CONTENT.items() if name != "other_methods"})
    assert "whisper" not in run_experiment(str(path), read_config(str(shop_config)))[0]


def test_a_row_overrides_the_settings(small: Path, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    run_experiment(str(small), read_config(str(shop_config)))
    names = {folder.name.partition("-shop")[0] for folder in (tmp_path / "results" / "runs").iterdir()}
    assert names == {"pag-recency-k1", "nonperso", "copy", "rag-recency-k2", "whisper"}


def test_rows_are_left_out_for_models_that_they_name(small: Path) -> None:
    groups = [
        {"name": "", "ranked": True, "rows": [{"label": "RAG", "set": {"method": "rag"}}]},
        {"name": "Big", "ranked": False, "rows": [{"label": "X", "set": {"method": "pag"}, "except_models": "32B"}]},
    ]
    _, experiment = read_experiment(str(write(small.parent, CONTENT | {"groups": groups})))
    assert [group.name for group in experiment.for_model("org/Model-7B").groups] == ["", "Big"]
    assert [group.name for group in experiment.for_model("org/Model-32B-Instruct").groups] == [""]


def test_notes_on_what_was_trained(small: Path, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    groups = [{"name": "", "ranked": True, "rows": [{"label": "DEP", "set": {"method": "dep", "k": 2}}]}]
    settings = read_config(str(shop_config)) | {"fidelity": "official", "chat_template": "model"}
    run_experiment(str(write(small.parent, CONTENT | {"groups": groups})), settings)
    text = (tmp_path / "results" / "tables" / "small.md").read_text().replace("\\", "")
    run = Run(build(settings, {"method": "dep", "k": 2}))
    trained = sum(parameter.numel() for parameter in run.fresh_adapter(128).parameters())
    assert f"dep: {trained:,} trained parameters (" in text
    assert " of all), 1 instances; of 1 epochs the one with the best validation meteor is kept (1)." in text
    # Only A1 has two reviewers. It is u2's one block; u1's are A3 and A2, and the first of them has A1's vectors.
    assert "dep: 50.0% of the slots hold another review than their block's." in text


def test_cells_hold_scores_and_intervals(shop_config: Path, small: Path, scripted: Any) -> None:
    settings = read_config(str(shop_config))
    _, experiment = read_experiment(str(small))
    experiment = experiment.model_copy(update={"groups": experiment.groups[:2]})
    runs = [Run(build(settings, {"method": name})) for name in ("pag", "nonperso", "copy")]
    summaries = execute(runs, lambda _: None)
    table = assemble("small", experiment, runs, summaries)
    assert [row.label for row in table.rows] == ["PAG", "None", "Copy"]
    for row, summary in zip(table.rows, summaries, strict=True):
        assert set(row.cells) == {("Toys", "bleu"), ("Toys", "rouge1")}
        for (category, column), cell in row.cells.items():
            scores = summary["scores"][category][column]
            assert (cell.value, cell.low, cell.high) == (scores["value"], scores["low"], scores["high"])
            assert cell.paper is None


def test_notes(small: Path, shop_config: Path, tmp_path: Path, scripted: Any, tiny_qwen2: Path, shop: Path) -> None:
    settings = read_config(str(shop_config)) | {"input_budget": 700}
    run_experiment(str(small), settings)
    text = (tmp_path / "results" / "tables" / "small.md").read_text().replace("\\", "")
    for note in (
        f"Model {tiny_qwen2}, data {shop}, test instances: Toys 3. Fidelity paper, seed 0, temperature 0.8, "
        "top-p 0.95; one run, no repeats.",
        # pag shows one block to u1 and u2; rag has room for one of u1's two at this budget.
        "History: the recency retriever gives K=1 reviews; blocks that fit the input budget of 700 tokens, on average: "
        "PAG 0.67.",
        "History: the recency retriever gives K=2 reviews; blocks that fit the input budget of 700 tokens, on average: "
        "RAG 0.67.",
        # Only copy answers u3, who has no profile, with nothing.
        "Empty predictions score 0 (1 in this table); 0 texts were cut off at 8 new tokens.",
        "A random model stands in for Qwen.",
        "A note of the experiment.",
    ):
        assert text.count(note) == 1, note


def test_the_demo_says_what_it_is_and_what_needs_no_model_there(
    tmp_path: Path, shop_config: Path, demo: dict[str, Corpus]
) -> None:
    content = CONTENT | {"groups": [CONTENT["groups"][1]], "other_methods": None}
    settings = read_config(str(shop_config)) | {"dataset": "demo", "limit": 2}
    (printed, *_) = run_experiment(str(write(tmp_path, content)), settings)
    flat = " ".join(printed.split())
    for note in demo["Books"].notes:
        assert note in flat
    assert "test instances: Books 2, Movies & TV 2, CDs & Vinyl 2." in flat
    assert "ROUGE-1 without a model on the test split: the user's last review 0." in flat


def test_the_papers_value_stands_only_beside_its_data_and_models(
    shop: Path, shop_config: Path, tiny_qwen2: Path, tmp_path: Path, scripted: Any
) -> None:
    data, model = tmp_path / "DPL-main", tmp_path / "Qwen2.5-7B-Instruct"
    shutil.copytree(shop, data)
    for part in ("main", "meta"):
        (data / part / "Toys").rename(data / part / "Books")
    shutil.copytree(tiny_qwen2, model)
    _, experiment = read_experiment(str(write(tmp_path, CONTENT | {"groups": CONTENT["groups"][:2]})))
    settings = read_config(str(shop_config)) | {"dataset": str(data), "model": str(model)}

    def papers(**other: str) -> list[float | None]:
        runs = [Run(build(settings, other, {"method": name})) for name in ("pag", "nonperso", "copy")]
        table = assemble("table1-paper-7b", experiment, runs, execute(runs, lambda _: None))
        return [row.cells["Books", "bleu"].paper for row in table.rows]

    expected = [paper_value("table1", row, "Books", "bleu") for row in ("PAG-7B", "Non-Perso-7B")]
    assert None not in expected
    assert papers() == [*expected, None]
    assert papers(model=str(tiny_qwen2)) == [None, None, None]
    data.rename(tmp_path / "other-data")
    assert papers(dataset=str(tmp_path / "other-data")) == [None, None, None]


def test_the_shipped_table_1() -> None:
    table_id, experiment = read_experiment("table1")
    assert table_id == "table1"
    assert experiment.columns == ("rouge1", "meteor", "bleu", "bertscore")
    named = [row.set["method"] for group in experiment.groups for row in group.rows]
    assert {"nonperso", "rag", "pag", "copy"} <= set(named)
    for row in (row for group in experiment.groups for row in group.rows if row.paper):
        for size in ("7B", "32B"):
            if row.set["method"] in ("nonperso", "rag", "pag"):
                assert row.paper
                assert paper_value("table1", row.paper.format(size=size), "Books", "rouge1") is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("columns: [", r"small\.yaml cannot be read as YAML"),
        ("", r"small\.yaml: the file: Input should be a valid dictionary"),
        (CONTENT | {"colums": []}, r"small\.yaml: colums: Extra inputs are not permitted"),
        (CONTENT | {"groups": []}, r"small\.yaml: groups: Tuple should have at least 1 item"),
        (CONTENT | {"groups": [{"name": "", "ranked": True, "rows": []}]}, r"groups\.0\.rows: Tuple should have"),
        (CONTENT | {"columns": []}, r"small\.yaml: columns: Tuple should have at least 1 item"),
        (
            CONTENT | {"columns": ["roug1"]},
            r"has a column 'roug1', which none of the metrics rouge, bleu gives; did you mean 'rouge1'\? They give: ",
        ),
        (
            CONTENT | {"groups": [{"name": "", "ranked": True, "rows": [{"label": "x", "set": {"kk": 1}}]}]},
            r"'kk' is not a configuration key",
        ),
        (
            CONTENT | {"groups": [{"name": "", "ranked": True, "rows": [{"label": "x", "set": {"k": 1}}]}]},
            r"'method' is not set",
        ),
    ],
)
def test_what_is_refused(content: Any, message: str, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        run_experiment(str(write(tmp_path, content)), read_config(str(shop_config)))
    assert scripted.calls == []


def test_an_unknown_experiment() -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'tabel1'; did you mean 'table1'\? Shipped: table1; or give"):
        read_experiment("tabel1")

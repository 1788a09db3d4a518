"""Experiment files to tables and figures."""

from __future__ import annotations

import csv
import os
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
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
from bench.experiments.names import experiment_names, title_of
from bench.experiments.produce import Options, produce
from bench.experiments.scores import RowRuns, assemble
from bench.experiments.spec import Experiment, read_experiment
from bench.job import Job
from bench.paper import paper_value, read_numbers
from bench.protocols import Properties, Steps
from bench.records import Instance
from bench.report.table import Group, Table
from bench.results import RunRecord, Summary
from bench.softprompt.trained import fresh_adapter

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
def outsider(register: Callable[[str, str, type], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """`Whisper` is installed, and there is one core: no second process is started, which would take longer than such
    small adapters to train."""
    register("methods", "whisper", Whisper)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, CONTENT)


def write(folder: Path, content: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def run_experiment(name: str, settings: dict[str, Any], **options: Any) -> list[str]:
    return produce([name], {"shop": settings}, Options(**options))


def table_of(table_id: str, experiment: Experiment, jobs: list[Job], **options: bool) -> Table:
    """The table of finished jobs, one for each row."""
    rest = iter(jobs)
    rows = [
        RowRuns(spec, Group(group.name, group.ranked), 0, (next(rest),) if spec.set else ())
        for group in experiment.groups
        for spec in group.rows
    ]
    return assemble(table_id, experiment, rows, **options)


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
    execute([Job.of(build(settings, {"method": "nonperso"}))], lambda _: None)
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
    run = Job.of(build(settings, {"method": "dep", "k": 2})).run
    trained = sum(parameter.numel() for parameter in fresh_adapter(run, 128).parameters())
    assert f"DEP: {trained:,} trained parameters (" in text
    assert " of all), 1 instances; one epoch." in text
    # Only A1 has two reviewers. It is u2's one block; u1's are A3 and A2, and the first of them has A1's vectors.
    assert "DEP: 50.0% of the slots hold another review than their block's." in text


def test_cells_hold_scores_and_intervals(shop_config: Path, small: Path, scripted: Any) -> None:
    settings = read_config(str(shop_config))
    _, experiment = read_experiment(str(small))
    experiment = experiment.model_copy(update={"groups": experiment.groups[:2]})
    jobs = [Job.of(build(settings, {"method": name})) for name in ("pag", "nonperso", "copy")]
    summaries = execute(jobs, lambda _: None)
    table = table_of("small", experiment, jobs)
    assert [row.label for row in table.rows] == ["PAG", "None", "Copy"]
    for row, summary in zip(table.rows, summaries, strict=True):
        assert set(row.cells) == {("Toys", "bleu"), ("Toys", "rouge1")}
        for (category, column), cell in row.cells.items():
            score = summary.scores[category][column]
            assert (cell.value, cell.low, cell.high) == (score.value, score.low, score.high)
            assert cell.paper is None


def test_notes(small: Path, shop_config: Path, tmp_path: Path, scripted: Any, tiny_qwen2: Path, shop: Path) -> None:
    settings = read_config(str(shop_config)) | {"input_budget": 700}
    run_experiment(str(small), settings)
    text = (tmp_path / "results" / "tables" / "small.md").read_text().replace("\\", "")
    for note in (
        f"Model {tiny_qwen2.name}, data {shop.name}, test instances: Toys 3. Fidelity paper, seed 0, temperature 0.8, "
        "top-p 0.95; one run, no repeats.",
        # pag shows one block to u1 and u2; rag has room for one of u1's two at this budget.
        "History: the recency retriever gives K=1 reviews; blocks that fit the input budget of 700 tokens, on average: "
        "PAG 0.67.",
        "History: the recency retriever gives K=2 reviews; blocks that fit the input budget of 700 tokens, on average: "
        "RAG 0.67.",
        # Only copy answers u3, who has no profile, with nothing.
        "Empty predictions score 0 (1 in this table); 0 texts cut off at 8 new tokens.",
        "A random model stands in for Qwen.",
        "A note of the experiment.",
    ):
        assert text.count(note) == 1, note


@pytest.mark.parametrize(("columns", "count"), [(["rouge1"], 1), (["bleu"], 0)])
def test_a_note_on_what_rouge_cannot_read(
    chinese_shop: Path, shop_config: Path, tmp_path: Path, scripted: Any, columns: list[str], count: int
) -> None:
    settings = read_config(str(shop_config)) | {"dataset": str(chinese_shop)}
    run_experiment(str(write(tmp_path, CONTENT | {"columns": columns})), settings)
    text = (tmp_path / "results/tables/small.md").read_text().replace("\\", "")
    assert text.count("rouge: 2 of 3 references are mostly not in the letters a-z") == count


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

    def papers(paper: bool = False, **other: Any) -> list[float | None]:
        jobs = [Job.of(build(settings, other, {"method": name})) for name in ("pag", "nonperso", "copy")]
        execute(jobs, lambda _: None)
        table = table_of("table1-paper-7b", experiment, jobs, paper=paper)
        assert any(note.startswith("Paper: of the paper's data") for note in table.notes) == bool(paper and other)
        return [row.cells["Books", "bleu"].paper for row in table.rows]

    expected = [paper_value("table1", row, "Books", "bleu") for row in ("PAG-7B", "Non-Perso-7B")]
    assert None not in expected
    assert papers() == [*expected, None]
    assert papers(model=str(tiny_qwen2)) == [None, None, None]
    assert papers(limit=2) == [None, None, None]
    assert papers(split="val") == [None, None, None]
    data.rename(tmp_path / "other-data")
    assert papers(dataset=str(tmp_path / "other-data")) == [None, None, None]
    assert papers(dataset=str(tmp_path / "other-data"), paper=True) == [*expected, None]


MINUS = [
    {"rows": [{"label": "RAG", "set": {"method": "rag"}}, {"label": "Copy", "set": {"method": "copy"}}]},
    {"name": "Gain", "ranked": False, "rows": [{"label": "Gain", "minus": ["Copy", "RAG"]}]},
]


def test_a_row_may_be_the_difference_of_two(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    _, experiment = read_experiment(str(write(tmp_path, CONTENT | {"groups": MINUS})))
    jobs = [Job.of(build(read_config(str(shop_config)), {"method": name})) for name in ("rag", "copy")]
    execute(jobs, lambda _: None)
    table = table_of("small", experiment, jobs, significance=True)
    rag, copied, gain = (row.cells["Toys", "rouge1"] for row in table.rows)
    assert gain.value == pytest.approx(copied.value - rag.value)
    assert gain.signed
    assert gain.low <= gain.value <= gain.high
    # Three users can be exchanged in eight ways, of which no fewer than two set the scores that far apart; two columns
    # have a comparison with the best and a difference each.
    ps = [row.cells[key].p for row in table.rows for key in row.cells]
    assert ps.count(None) == 2, "the best is not compared with itself"
    assert all(p is None or 0.25 <= p <= 1 for p in ps)


def test_the_lowest_is_the_best_where_the_metric_says_so(
    shop_config: Path, tmp_path: Path, scripted: Any, example: None
) -> None:
    """An installed metric: its own head in every rendering, and rows tested against the one with the lowest score."""
    rows = [{"label": name, "set": {"method": name}} for name in ("copy", "whisper", "nonperso")]
    groups = [{"rows": rows[:2]}, {"name": "Control", "ranked": False, "rows": rows[2:]}]
    content = CONTENT | {"columns": ["size"], "groups": groups, "answers": [{"against": "nonperso"}]}
    settings = read_config(str(shop_config)) | {"metrics": ["size"]}
    (printed, *_) = run_experiment(str(write(tmp_path, content)), settings, significance=True)
    assert "Size" in printed
    assert (
        "\nwhisper (the best of copy, whisper by Size) cannot be told from nonperso by so few users in Size" in printed
    )
    lines = {line["row"]: line for line in csv.DictReader((tmp_path / "results" / "tables" / "small.csv").open())}
    assert float(lines["whisper"]["value"]) == 1 < float(lines["copy"]["value"])
    assert lines["whisper"]["p"] == "" != lines["copy"]["p"]
    text = (tmp_path / "results" / "tables" / "small.md").read_text()
    assert "| Size ↓ |" in text
    assert "| **1.0** [" in text


def test_seeds(small: Path, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    """Mean and deviation over runs that differ in the seed, those of adapters too."""
    settings = read_config(str(shop_config)) | {"seed": 4}
    groups = [{"rows": [{"label": "Copy", "set": {"method": "copy"}}, {"label": "PPlug", "set": {"method": "pplug"}}]}]
    answers = [{"row": "PPlug", "against": "Copy"}]
    path = str(write(small.parent, CONTENT | {"groups": groups, "answers": answers, "columns": ["rouge1"]}))
    (printed, *_) = run_experiment(path, settings, seeds=3, suffix="-seeds3")
    records = [RunRecord.read(path) for path in (tmp_path / "results" / "runs").glob("pplug*/run.json")]
    seeds = sorted((record.config["seed"], record.config["train"]["seed"]) for record in records)
    assert seeds == [(4, 42), (5, 43), (6, 44)]
    assert len(list((tmp_path / "results" / "adapters").glob("pplug*/training.json"))) == 3
    summaries = [Summary.read(path) for path in (tmp_path / "results" / "runs").glob("pplug*/summary.json")]
    values = [summary.scores["Toys"]["rouge1"].value for summary in summaries]
    lines = list(csv.DictReader((tmp_path / "results" / "tables" / "small-seeds3.csv").open()))
    (line,) = [line for line in lines if (line["row"], line["column"]) == ("PPlug", "rouge1")]
    assert float(line["value"]) == pytest.approx(statistics.mean(values))
    assert float(line["sd"]) == pytest.approx(statistics.stdev(values))
    text = (tmp_path / "results" / "tables" / "small-seeds3.md").read_text()
    assert "seeds 4, 5, 6, each with adapters of its own" in text
    (copied,) = [float(one["value"]) for one in lines if one["row"] == "Copy"]
    difference = statistics.mean(values) - copied
    assert f"PPlug cannot be told from Copy by so few users in R-1 ({difference:+.4f}" in printed


def test_several_configurations_repeat_the_rows(small: Path, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    """The paper's Table 1: rows under each model, the best of each of them marked."""
    first = read_config(str(shop_config))
    other = tmp_path / "Other-32B"
    shutil.copytree(first["model"], other)
    (other / "README").write_text("another model")
    produce([str(small)], {"one": first, "two": first | {"model": str(other)}}, Options())
    text = (tmp_path / "results" / "tables" / "small.md").read_text().replace("\\", "")
    model = Path(first["model"]).name
    groups = [model, f"{model} / Controls", f"{model} / More", "Other-32B", "Other-32B / Controls", "Other-32B / More"]
    found = [label for label in labels(text) if label in groups]
    assert found == groups
    assert text.count("| PAG |") == 2


def test_tables_share_their_runs(small: Path, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    second = tmp_path / "second.yaml"
    second.write_text(yaml.safe_dump(CONTENT | {"columns": ["rouge1"], "title": "Second"}))
    printed = produce([str(small), str(second)], {"shop": read_config(str(shop_config))}, Options())
    assert [text.splitlines()[0] for text in printed if not text.startswith("wrote")] == [
        "A small comparison",
        "Second",
    ]
    assert len(scripted.calls) == len({call.key for call in scripted.calls}) == 12
    scripted.calls.clear()
    run_experiment(str(second), read_config(str(shop_config)))
    assert scripted.calls == []


def test_a_figure_by_the_uniqueness_of_users(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    content = {
        "title": "Unique",
        "columns": ["rouge1"],
        "users": "uniqueness",
        "categories": ["Elsewhere"],
        "figure": {"kind": "bars", "x": "Users"},
        "groups": [{"rows": [{"label": "RAG", "set": {"method": "rag"}}, {"label": "DPL", "set": {"method": "dpl"}}]}],
    }
    settings = read_config(str(shop_config))
    printed = run_experiment(str(write(tmp_path, content)), settings)
    # u1 and u2 have a history, u3 none; one of the two is in each group.
    notes = (tmp_path / "results" / "figures" / "small.md").read_text().replace("\\", "")
    assert "test instances: Toys 2. Fidelity" in notes
    assert "Instances of Toys; the data have no Elsewhere." in notes
    lines = list(csv.DictReader((tmp_path / "results" / "figures" / "small.csv").open()))
    assert {line["category"] for line in lines} == {"Unique", "Non-Unique"}
    for suffix in ("pdf", "png", "csv", "md"):
        assert f"wrote {tmp_path / 'results' / 'figures' / f'small.{suffix}'}" in printed
    content["groups"][0]["rows"].pop()  # type: ignore[index]
    with pytest.raises(ConfigError, match="users by uniqueness need a row with a method that has an encoder"):
        run_experiment(str(write(tmp_path, content)), settings)


def test_contents_that_are_no_scores(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    settings = read_config(str(shop_config))
    printed = produce(["table4", "table5", "table10", "figure7"], {"shop": settings}, Options(suffix="-x"))
    assert {call.key[1].partition("_")[0] for call in scripted.calls} >= {"dpl", "dep"}
    folder = tmp_path / "results" / "tables"
    for name in ("table4-x", "table4_trust-x", "table5-x", "table10-x", "figure7-x"):
        assert {path.suffix for path in folder.glob(f"{name}*")} == {".tex", ".md", ".html", ".csv"}, name
    table5 = next(text for text in printed if text.startswith("What the methods use"))
    assert "DPL" in table5
    rows = list(csv.DictReader((folder / "table5-x.csv").open()))
    declared = {(row["method"], row["property"]): (row["declared"], row["paper"]) for row in rows}
    assert all(paper in ("", own) for own, paper in declared.values()), "the paper's Table 5"
    assert declared["DEP", "inter_user_difference"] == ("True", "True")
    assert declared["whisper", "retrieval_augmentation"] == ("False", "")
    assert "The paper's Table 5 says the same of its methods." in table5


def test_rows_of_other_instances_are_not_compared(small: Path, shop_config: Path, scripted: Any) -> None:
    groups = [
        {"rows": [{"label": "A", "set": {"method": "rag"}}, {"label": "B", "set": {"method": "rag", "limit": 2}}]}
    ]
    path = str(write(small.parent, CONTENT | {"groups": groups}))
    with pytest.raises(ConfigError, match="small: row 'B' has other instances than row 'A'"):
        run_experiment(path, read_config(str(shop_config)))


def test_the_shipped_table_1() -> None:
    table_id, experiment = read_experiment("table1")
    assert table_id == "table1"
    assert experiment.columns == ("rouge1", "meteor", "bleu", "bertscore")
    assert [row.label for row in experiment.groups[0].rows] == ["Non-Perso", "RAG", "PAG", "DPL", "PPlug", "DEP"]


@pytest.mark.parametrize("name", experiment_names())
def test_every_number_of_the_papers_tables_has_its_cell(name: str) -> None:
    """Rows that the paper has are found in its numbers, and none of its rows is left out."""
    table_id, experiment = read_experiment(name)
    rows = [row for group in experiment.groups for row in group.rows]
    if experiment.content != "scores" or experiment.figure is not None or name == "style":
        return
    of_paper = experiment.paper_table or table_id
    reported = {(row, metric) for table, row, _, metric in read_numbers() if table == of_paper}
    sizes = [experiment.paper_size] if experiment.paper_size else ["7B", "32B"]
    found = set()
    for row in (row for row in rows if row.paper):
        for size in (size for size in sizes if row.except_models != size):
            found |= {(row.paper.format(size=size), column) for column in experiment.columns}
    assert found == reported
    for row in rows:
        build(read_config("demo"), row.set or {"method": "copy"})


def test_what_is_shipped() -> None:
    tables = [f"table{number}" for number in range(1, 11)]
    assert experiment_names() == [
        *tables,
        *("table1_extended", "lamp", "style", "figure2", "figure3", "figure5", "figure7", "longlamp", "pgraphrag"),
    ]
    assert all(title_of(name) == read_experiment(name)[1].title for name in experiment_names())


RANKED = [{"label": "RAG", "set": {"method": "rag"}}, {"label": "Copy", "set": {"method": "copy"}}]
MISTAKE = {"label": "x", "minus": ["PAG", "RAD"]}
SCORED_OTHERWISE = {"method": "rag", "rouge": {"average": "bootstrap_median"}}


def test_a_difference_goes_with_a_row_it_is_made_of(small: Path) -> None:
    groups = [
        {"rows": [RANKED[0] | {"except_models": "32B"}, RANKED[1]]},
        {"name": "Gain", "ranked": False, "rows": [{"label": "Gain", "minus": ["Copy", "RAG"]}]},
    ]
    answers = [{"against": "Copy"}, {"row": "Copy", "against": "RAG"}]
    _, experiment = read_experiment(str(write(small.parent, CONTENT | {"groups": groups, "answers": answers})))
    assert [answer.against for answer in experiment.for_model("x-32B").answers] == ["Copy"]
    assert [row.label for group in experiment.for_model("x-32B").groups for row in group.rows] == ["Copy"]
    assert len(experiment.for_model("x-7B").groups) == 2


def test_rows_of_another_experiment(tmp_path: Path) -> None:
    _, whole = read_experiment(str(write(tmp_path, {"rows_of": "table9", "columns": ["bleu"]})))
    _, shipped = read_experiment("table9")
    assert (whole.groups, whole.title, whole.columns) == (shipped.groups, shipped.title, ("bleu",))


def test_groups_and_notes_behind_those_of_another_experiment(tmp_path: Path) -> None:
    more = {"more_groups": [{"name": "Mine", "rows": RANKED}], "more_notes": ["Mine."]}
    _, whole = read_experiment(str(write(tmp_path, {"rows_of": "table9", **more})))
    _, shipped = read_experiment("table9")
    assert whole.groups[:-1] == shipped.groups
    assert (whole.groups[-1].name, whole.groups[-1].labels) == ("Mine", ["RAG", "Copy"])
    assert whole.notes == (*shipped.notes, "Mine.")


def test_answers_go_with_the_rows_that_they_are_about(tmp_path: Path) -> None:
    _, shipped = read_experiment("table1")
    more = {"rows_of": "table1", "more_groups": [{"name": "Mine", "rows": [{"label": "x", "set": {"method": "rag"}}]}]}
    assert read_experiment(str(write(tmp_path, more)))[1].answers == shipped.answers != ()
    more["more_answers"] = [{"row": "x", "against": "RAG"}]
    *same, last = read_experiment(str(write(tmp_path, more)))[1].answers
    assert (tuple(same), last.row, last.against) == (shipped.answers, "x", "RAG")
    assert read_experiment(str(write(tmp_path, {"rows_of": "table1", "groups": [{"rows": RANKED}]})))[1].answers == ()
    assert [answer.row for answer in shipped.for_model("x-32B").answers] == [None, None]


def test_table_1_extended_is_table_1_and_two_methods() -> None:
    (_, table), (_, extended) = read_experiment("table1"), read_experiment("table1_extended")
    *same, ranked, controls = extended.groups
    assert tuple(same) == table.groups
    assert (ranked.ranked, controls.ranked, controls.labels) == (True, False, ["E2P shuffled"])
    added = [(row.set or {})["method"] for row in ranked.rows]
    assert added == ["drp", "e2p"] == list(table.left_out)
    assert (extended.columns, extended.notes[:-1]) == (table.columns, table.notes)
    # Every built-in method stands in the one; in the other all but these two.
    for experiment in (table, extended):
        assert experiment.with_other_methods().groups[-1].labels == ["whisper"]
    assert [row.label for group in extended.for_model("x-32B").groups for row in group.rows][-1] == "DRP"


def test_files_that_would_be_overwritten(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    settings = {"shop": read_config(str(shop_config))}
    paths = [tmp_path / name / "q.yaml" for name in ("one", "two")]
    for path in (*paths, tmp_path / "table1.yaml"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(CONTENT))
    with pytest.raises(ConfigError, match="two experiments are called 'q' and would write the same files"):
        produce([str(path) for path in paths], settings, Options())
    with pytest.raises(ConfigError, match="has the name of a shipped experiment, whose files it would replace"):
        produce([str(tmp_path / "table1.yaml")], settings, Options())
    assert scripted.calls == []


def test_a_name_that_no_file_can_have_is_changed(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    path = tmp_path / "my.table v2.yaml"
    path.write_text(yaml.safe_dump(CONTENT | {"groups": [{"rows": RANKED}]}))
    run_experiment(str(path), read_config(str(shop_config)), suffix="-a.b")
    assert (tmp_path / "results" / "tables" / "my_table_v2-a_b.tex").is_file()


def test_configurations_with_one_model_stand_apart(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    settings = read_config(str(shop_config))
    answers = [{"row": "Copy", "against": "RAG"}]
    path = write(tmp_path, CONTENT | {"groups": [{"rows": RANKED}], "answers": answers})
    produce([str(path)], {"plain": settings, "short": settings | {"k": 1}}, Options())
    lines = list(csv.DictReader((tmp_path / "results" / "tables" / "small.csv").open()))
    model = Path(settings["model"]).name
    assert {line["group"] for line in lines} == {f"{model} (plain)", f"{model} (short)"}
    # Answered for each by itself.
    for suffix in (".md", ".html", ".tex"):
        text = (tmp_path / "results" / "tables" / f"small{suffix}").read_text()
        for group in ("plain", "short"):
            assert f"({group}): Copy cannot be told from RAG by so few users in BLEU (" in text.replace("\\", "")
        assert "Paired over the 3 users of all categories as one sample." in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("columns: [", r"small\.yaml cannot be read as YAML"),
        ("", r"small\.yaml must hold a mapping \(title, columns, groups, \.\.\.\)"),
        (
            {"titel": "T"} | {k: v for k, v in CONTENT.items() if k != "title"},
            r"titel: there is no such key; did you mean 'title'",
        ),
        (CONTENT | {"colums": []}, r"small\.yaml: colums: there is no such key"),
        (CONTENT | {"groups": []}, r"small\.yaml: .*'groups' must hold at least one group of rows"),
        (
            CONTENT | {"groups": [{"name": "", "ranked": True, "rows": []}]},
            r"groups\.0\.rows: must be a list of at least 1",
        ),
        (CONTENT | {"columns": []}, r"small\.yaml: .*'columns' must name at least one score"),
        (
            CONTENT | {"groups": [{"rows": [{"label": "x"}]}]},
            r"small\.yaml: groups\.0\.rows\.0: .*give either 'set' \(settings\) or 'minus'",
        ),
        (
            CONTENT | {"groups": [*CONTENT["groups"], {"name": "d", "ranked": False, "rows": [MISTAKE]}]},
            r"small\.yaml: .*row 'x': 'minus': there is no row of runs 'RAD'; did you mean 'RAG'\? There are: ",
        ),
        (
            CONTENT | {"groups": [{"rows": [*RANKED, {"label": "d", "minus": ["RAG", "Copy"]}]}]},
            r"row 'd': a difference stands in a group with 'ranked: false'",
        ),
        (
            CONTENT | {"groups": [{"rows": [row | {"except_models": "qwen"} for row in RANKED]}]},
            r"the experiment 'A small comparison' has no row for model .*: see its except_models",
        ),
        (
            CONTENT | {"groups": [{"rows": RANKED}], "answers": [{"row": "Copy", "against": "RAD"}]},
            r"small\.yaml: 'answers': there is no row of runs 'RAD'; did you mean 'RAG'\? There are: RAG, Copy",
        ),
        (
            CONTENT | {"groups": [{"rows": RANKED}], "answers": [{"row": "Copy", "against": "Copy"}]},
            r"small\.yaml: 'answers': it must name two rows, not 'Copy' twice",
        ),
        (
            CONTENT | {"groups": [{"rows": RANKED}, {"name": "b", "rows": RANKED}], "answers": [{"against": "Copy"}]},
            r"small\.yaml: 'answers': several rows are called 'Copy'; give each a label of its own",
        ),
        (
            CONTENT | {"groups": [{"rows": [*RANKED, RANKED[0] | {"set": {"method": "pag"}}]}]},
            r"small\.yaml: groups\.0: two rows are called 'RAG'; give each a label of its own",
        ),
        (CONTENT | {"columns": ["bleu", "bleu"]}, r"small\.yaml: 'bleu' stands twice among the columns"),
        (CONTENT | {"columns": ["rouge1", "R-1"]}, "'rouge1' and 'R-1' are the same column; name it once"),
        (
            CONTENT | {"answers": [{"against": "RAG"}], "figure": {"kind": "bars", "x": "K"}},
            r"small\.yaml: .*'answers' are for a table of scores",
        ),
        ({"rows_of": "table9", "more_groups": 3}, r"more_groups must be a list, as groups is"),
        ({"more_groups": []} | CONTENT, r"small\.yaml: more_groups: there is no such key"),
        (
            CONTENT | {"other_methods": "Others", "left_out": ["wisper"]},
            r"left_out: there is no method 'wisper'; did you mean 'whisper'\?",
        ),
        ({"rows_of": "tabel1"}, r"rows_of: there is no shipped experiment 'tabel1'; did you mean 'table1'\?"),
        (
            CONTENT | {"groups": [{"rows": [RANKED[0], RANKED[0] | {"label": "x", "set": SCORED_OTHERWISE}]}]},
            r"two rows are the same run \(rag-.*\) scored in two ways, of which it keeps one",
        ),
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
            r"row 'x': 'method' is not set",
        ),
        (
            CONTENT | {"groups": [{"rows": [RANKED[0] | {"paper": "RAG-{sise}"}]}]},
            r"small\.yaml: groups\.0\.rows\.0\.paper: can have no braces but \{size\}, got 'RAG-\{sise\}'",
        ),
        (
            CONTENT | {"paper_table": "table1", "groups": [{"rows": [RANKED[0] | {"paper": "RGA-{size}"}]}]},
            r"experiment small: the paper's table1 has no row 'RGA-\{size\}'; did you mean 'RAG-",
        ),
        (
            CONTENT | {"paper_table": "tabel1", "groups": [{"rows": [RANKED[0] | {"paper": "RAG-7B"}]}]},
            r"experiment small: paper_table: the paper has no table 'tabel1'; did you mean 'table1'\?",
        ),
        (
            CONTENT | {"groups": [{"rows": [{"label": "x", "set": {"method": ["rag"]}}]}]},
            "row 'x': method: must be text",
        ),
        (CONTENT | {"groups": [{"rows": [RANKED[0] | {"label": 5}]}]}, r"small\.yaml: .*\.label: must be text"),
        (CONTENT | {"groups": [{"rows": [RANKED[0] | {"set": {1: 2}}]}]}, r"small\.yaml.*: the key 1 is not text"),
        (
            CONTENT | {"figure": {"kind": "lines", "x": "K"}},
            r"small\.yaml: .*row '.*': a figure of lines needs a number as its label",
        ),
    ],
)
def test_what_is_refused(content: Any, message: str, shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        run_experiment(str(write(tmp_path, content)), read_config(str(shop_config)))
    assert scripted.calls == []


def test_an_unknown_experiment() -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'tabel1'; did you mean 'table1'\? Shipped: table1, "):
        read_experiment("tabel1")

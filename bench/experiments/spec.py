"""An experiment file: a table or a figure as rows (configuration overrides), columns and notes.

title: Methods compared on review generation
columns: [rouge1, meteor]
groups:
  - name: ""
    ranked: true
    rows:
      - {label: RAG, paper: "RAG-{size}", set: {method: rag}}
      - {label: RAG with BM25, set: {method: rag, retriever: bm25}}
notes: []

`answers: [{row: RAG with BM25, against: RAG}]` has the verdict on two rows said under the table; without `row` the best
row's.
`tasks: {lamp-3: [mae, rmse], lamp-4: [rouge1]}` in the place of columns runs the rows on several tasks.
`rows_of: table1` in the place of groups takes over what a shipped experiment says and this file does not;
`more_groups`, `more_answers` and `more_notes` then stand behind its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from bench import registry, yaml_text
from bench.config import Section
from bench.errors import ConfigError
from bench.experiments.names import FOLDER, experiment_names
from bench.files import path_of
from bench.problems import check_value, sentence

SIZE = "{size}"
"""Stands for the model's size in the paper's name of a row."""


class RowSpec(Section):
    """One row: its label, the paper's name of it, and what it overrides or which two rows it is the difference of."""

    label: str
    paper: str | None = None
    """{size} stands for the model's size, e.g. 7B."""
    set: dict[str, Any] | None = None
    minus: tuple[str, str] | None = None
    """Labels of two rows: the first's score minus the second's."""
    except_models: str | None = None
    """Part of a model's name with which the row is left out."""

    @field_validator("paper")
    @classmethod
    def _size_alone(cls, value: str | None) -> str | None:
        if {"{", "}"} & set((value or "").replace(SIZE, "")):
            raise ValueError(f"can have no braces but {SIZE}")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> RowSpec:
        if (self.set is None) == (self.minus is None):
            raise ValueError("give either 'set' (settings) or 'minus' (labels of two rows)")
        return self

    @property
    def is_number(self) -> bool:
        """Whether its label is a number, as on the axis of a figure."""
        try:
            return math.isfinite(float(self.label))
        except ValueError:
            return False


class GroupSpec(Section):
    """Rows that are ranked among each other, or not ranked."""

    name: str = ""
    ranked: bool = True
    rows: Annotated[tuple[RowSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _told_apart(self) -> GroupSpec:
        if twice := [label for label in self.labels if self.labels.count(label) > 1]:
            raise ValueError(f"two rows are called '{twice[0]}'; give each a label of its own")
        return self

    @property
    def labels(self) -> list[str]:
        """Those of its rows."""
        return [row.label for row in self.rows]


class AnswerSpec(Section):
    """What the rows are there to answer: is one better than another, paired by user over all categories?"""

    row: str | None = None
    """Label of a row. Default: the best of the ranked rows but `against`, by the first column over all categories."""
    against: str
    """Label of a row."""


class FigureSpec(Section):
    """How scores are drawn: lines over rows whose labels are numbers, or a bar for each row."""

    kind: Literal["lines", "bars"]
    x: str
    """What the horizontal axis shows."""


class Experiment(Section):
    """The content of an experiment file."""

    title: str
    content: Literal["scores", "texts", "properties", "data"] = "scores"
    """What it shows: scores of runs, the texts of one instance, what methods are made of, or sizes of the data."""
    columns: tuple[str, ...] = ()
    """Names of scores."""
    tasks: Annotated[dict[str, Annotated[tuple[str, ...], Field(min_length=1)]], Field(default_factory=dict)]
    """In the place of columns: tasks, each with its own. The rows are run on each, and a row whose method a task's
    data cannot serve has a dash there."""
    groups: tuple[GroupSpec, ...] = ()
    rank_together: bool = False
    """Whether the best of a column is that of all ranked groups, not of each."""
    categories: tuple[str, ...] | None = None
    """Only these, where the data have one of them."""
    average: bool = False
    """Whether the means over the categories stand beside them, where there are several."""
    users: Literal["all", "uniqueness"] = "all"
    """Whether a category's users stand together, or apart by how unique their histories are (the paper's 4.4.2)."""
    figure: FigureSpec | None = None
    """Draw the scores instead of writing a table."""
    paper_table: str | None = None
    """The paper's table that `paper` of the rows refers to. Default: that of the file's name."""
    paper_size: Literal["7B", "32B"] | None = None
    """The model of the paper's numbers, where its rows do not name it."""
    instance: str | None = None
    """For texts: which instance. Default: one that is chosen without a look at the texts of any method."""
    answers: tuple[AnswerSpec, ...] = ()
    """What is tested and said in words under the table."""
    notes: tuple[str, ...] = ()
    other_methods: str | None = None
    """Name of the group of registered methods that no row names."""
    left_out: tuple[str, ...] = ()
    """Methods that stand in no row of that group either."""

    @model_validator(mode="after")
    def _complete(self) -> Experiment:
        if self.content == "scores" and bool(self.columns) == bool(self.tasks):
            raise ValueError("'columns' must name at least one score, or 'tasks' tasks with theirs")
        if self.tasks and (self.content != "scores" or self.figure or self.categories or self.users != "all"):
            raise ValueError("'tasks' are for a table of scores of all categories and users")
        if self.average and (self.content != "scores" or self.figure or self.users != "all"):
            raise ValueError("'average' is for a table of scores of all users")
        if self.content != "data" and not self.groups:
            raise ValueError("'groups' must hold at least one group of rows")
        labels = [row.label for group in self.groups for row in group.rows if row.set is not None]
        for group in self.groups:
            for row in (row for row in group.rows if row.minus):
                _check_two(f"row '{row.label}': 'minus'", row.minus or (), labels)
                if group.ranked:
                    raise ValueError(f"row '{row.label}': a difference stands in a group with 'ranked: false'")
        if self.answers and (self.content != "scores" or self.figure):
            raise ValueError("'answers' are for a table of scores")
        for answer in self.answers:
            _check_two("'answers'", [label for label in (answer.row, answer.against) if label is not None], labels)
        for named in (self.columns, *self.tasks.values()):
            if twice := [name for name in named if named.count(name) > 1]:
                raise ValueError(f"'{twice[0]}' stands twice among the columns")
        lines = self.figure is not None and self.figure.kind == "lines"
        if lines and (wrong := [row.label for group in self.groups for row in group.rows if not row.is_number]):
            raise ValueError(f"row '{wrong[0]}': a figure of lines needs a number as its label, such as 8")
        return self

    def for_model(self, model: str) -> Experiment:
        """The experiment without the rows that it leaves out for a model, and without the differences from those and
        the answers about them. Raises `ConfigError` if no row is left."""
        out = {
            row.label for group in self.groups for row in group.rows if row.except_models and row.except_models in model
        }
        groups = []
        for group in self.groups:
            rows = tuple(row for row in group.rows if not out & {row.label, *(row.minus or ())})
            if rows:
                groups.append(group.model_copy(update={"rows": rows}))
        if not groups:
            raise ConfigError(f"the experiment '{self.title}' has no row for model {model}: see its except_models")
        answers = tuple(answer for answer in self.answers if not out & {answer.row, answer.against})
        return self.model_copy(update={"groups": tuple(groups), "answers": answers})

    def of_task(self, task: str) -> Experiment:
        """What an experiment of several tasks says of one."""
        groups = []
        for group in self.groups:
            rows = [row.model_copy(update={"set": row.set and {**row.set, "task": task}}) for row in group.rows]
            groups.append(group.model_copy(update={"rows": tuple(rows)}))
        return self.model_copy(update={"columns": self.tasks[task], "tasks": {}, "groups": tuple(groups)})

    def with_other_methods(self) -> Experiment:
        """The experiment with a row for each registered method that it does not name, if it asks for them. Raises
        `ConfigError` where it leaves out one that there is not."""
        # A list: what a row says may be of any type.
        named = [(row.set or {}).get("method") for group in self.groups for row in group.rows]
        known = registry.names("methods")
        if unknown := [name for name in self.left_out if name not in known]:
            raise ConfigError(f"left_out: there is no method '{unknown[0]}'{registry.near_match(unknown[0], known)}")
        others = [name for name in known if name not in (*named, *self.left_out)]
        if not self.other_methods or not others:
            return self
        rows = tuple(RowSpec(label=name, set={"method": name}) for name in others)
        group = GroupSpec(name=self.other_methods, ranked=False, rows=rows)
        return self.model_copy(update={"groups": (*self.groups, group)})


def _check_two(what: str, named: Sequence[str], labels: Sequence[str]) -> None:
    """Raise `ValueError` unless each of the names is the label of one row, and of another one than the other's."""
    for label in named:
        if labels.count(label) > 1:
            raise ValueError(f"{what}: several rows are called '{label}'; give each a label of its own")
        if label not in labels:
            near = registry.near_match(label, labels)
            raise ValueError(f"{what}: there is no row of runs '{label}'{near} There are: {', '.join(labels)}")
    if len(set(named)) < len(named):
        raise ValueError(f"{what}: it must name two rows, not '{named[0]}' twice")


def read_experiment(name: str) -> tuple[str, Experiment]:
    """Id and content of a shipped experiment or a YAML file. Raises `ConfigError`."""
    known = experiment_names()
    path = FOLDER / f"{name}.yaml" if name in known else path_of(name)
    # A pipe would be waited for.
    if not path.is_file():
        what = f"{path} is not a file of an experiment" if path.exists() else f"there is no experiment '{name}'"
        near = registry.near_match(name, known)
        raise ConfigError(f"{what}{near} Shipped: {', '.join(known)}; or give a YAML file")
    if path.parent != FOLDER and path.stem in known:
        raise ConfigError(f"{path} has the name of a shipped experiment, whose files it would replace; rename it")
    content = yaml_text.read(path)
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} must hold a mapping (title, columns, groups, ...), see bench/{FOLDER.name}/table1.yaml"
        )
    if "rows_of" in content:
        content = _with_rows_of(str(content.pop("rows_of")), content)
    check_value(content, str(path))
    try:
        return path.stem, Experiment.model_validate(content)
    except ValidationError as error:
        # A key that does not exist explains one that is missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        near = ""
        if first["type"] == "extra_forbidden":
            keys = [
                key for kind in (Experiment, GroupSpec, RowSpec, AnswerSpec, FigureSpec) for key in kind.model_fields
            ]
            near = registry.near_match(str(first["loc"][-1]), keys).removesuffix(".")
        raise ConfigError(f"{path}: {sentence(first)}{near}") from None


def _with_rows_of(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """The content of a shipped experiment with that of another file over it. Raises `ConfigError`."""
    if name not in experiment_names():
        near = registry.near_match(name, experiment_names())
        raise ConfigError(f"rows_of: there is no shipped experiment '{name}'{near} See: bench list experiments")
    whole: dict[str, Any] = yaml_text.read(FOLDER / f"{name}.yaml")
    if {"groups", "figure"} & content.keys():
        # Answers are about rows of a table.
        whole.pop("answers", None)
    for key in ("groups", "answers", "notes"):
        more = content.pop(f"more_{key}", [])
        if not isinstance(more, list):
            raise ConfigError(f"more_{key} must be a list, as {key} is")
        whole[key] = [*whole.get(key, []), *more]
    return whole | content

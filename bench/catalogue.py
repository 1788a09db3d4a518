"""What there is to choose from, in a line each: plugins, configurations and experiments.

Plugins are read as texts and not imported, so that a list needs nothing of what they need.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bench import registry
from bench.experiments.names import FOLDER as EXPERIMENTS
from bench.experiments.names import experiment_names, title_of
from bench.report.names import score_name

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """A thing with a name: what it is in a sentence, its options with their defaults as they are written in Python,
    the scores that a metric gives by their columns' names, and where it comes from."""

    name: str
    about: str
    source: str
    options: dict[str, str] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)
    word: str = "Options"
    """What the options are called."""

    @property
    def json_object(self) -> dict[str, object]:
        """All of it under the names of its fields."""
        return {name: getattr(self, name) for name in ("name", "about", "options", "scores", "source")}

    @property
    def line(self) -> str:
        """All of it in a line, without the name."""
        parts = [self.about]
        if self.scores:
            parts.append(f"Gives: {', '.join(score_name(name, head) for name, head in self.scores.items())}")
        if self.options:
            parts.append(f"{self.word}: {', '.join(f'{name}={value}' for name, value in self.options.items())}")
        sentences = [part if part.endswith(("?", ".")) else f"{part}." for part in parts if part]
        return " ".join([*sentences, f"[{self.source}]"])


def entries(what: str) -> list[Entry]:
    """What there is of a group of plugins, of "configs" or of "experiments". Raises `PluginError`."""
    if what == "configs":
        from bench.config import config_names

        return [_config(name) for name in config_names()]
    if what == "experiments":
        return [_experiment(name) for name in experiment_names()]
    return [*(_built_in(what, name) for name in registry.builtin_names(what)), *_outside(what)]


def _config(name: str) -> Entry:
    path = Path(__file__).parent / "configs" / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    about = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    shown = dict(line.split(": ", 1) for line in lines if line.startswith(("dataset: ", "model: ", "limit: ")))
    return Entry(name, about.partition(". ")[0], f"bench/configs/{path.name}", shown, word="Sets")


def _experiment(name: str) -> Entry:
    path = EXPERIMENTS / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = ("columns: ", "content: ", "users: ", "rows_of: ")
    shown = dict(line.split(": ", 1) for line in lines if line.startswith(keys))
    return Entry(name, title_of(name), f"bench/experiments/{path.name}", shown, word="Sets")


# ---- plugins


def _built_in(group: str, name: str) -> Entry:
    package = importlib.util.find_spec(registry.HOMES[group])
    assert package is not None
    places = list(package.submodule_search_locations or [])
    path = next(path for place in places if (path := Path(place) / f"{name.replace('-', '_')}.py").exists())
    home = {"tasks": "bench/tasks", "layouts": "bench/data/layouts", "backends": "bench/backends"}.get(group, group)
    return _plugin(name, path, f"{home}/{path.name}")


def _outside(group: str) -> Iterator[Entry]:
    for name, point in sorted(registry.outsiders(group).items()):
        package = "an unknown package" if point.dist is None else f"package {point.dist.name} {point.dist.version}"
        path = _file_of(point)
        source = f"{package}, {point.value}"
        yield Entry(name, "", source) if path is None else _plugin(name, path, source, point.attr)


def _file_of(point: importlib.metadata.EntryPoint) -> Path | None:
    """The file of an entry point's module, found without importing it; None if it cannot be."""
    first, *rest = point.module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin)
    for part in rest:
        place = place.parent / part
        place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return place if place.is_file() else None


def _plugin(name: str, path: Path, source: str, wanted: str = "") -> Entry:
    tree = _parsed(path)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    chosen = [node for node in classes if node.name == wanted] or [node for node in classes if not _is_section(node)]
    about = ast.get_docstring(tree) or next(filter(None, map(ast.get_docstring, chosen)), "")
    options: dict[str, str] = {}
    scores: dict[str, str] = {}
    for node in chosen:
        if (columns := _variable("columns", node, tree, path)) is not None:
            scores |= dict(_columns(columns[0]))
        # The options of a backend stand in its settings.
        settings = _variable("settings", node, tree, path)
        found = (node, tree, path) if settings is None else _beside(ast.unparse(settings[0]), *settings[1:])
        options |= dict(_fields(*found)) if found is not None else {}
    sentence = " ".join(about.partition("\n\n")[0].split()).removeprefix(f"{name}: ")
    return Entry(name, sentence, source, options, scores)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_section(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Section" for base in node.bases)


def _fields(node: ast.ClassDef, tree: ast.Module, path: Path) -> Iterator[tuple[str, str]]:
    """The fields of a class, and of those beside it that it inherits from, with their defaults."""
    for base in node.bases:
        found = _beside(ast.unparse(base), tree, path)
        if found is not None:
            yield from _fields(*found)
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if "ClassVar" not in ast.unparse(statement.annotation) and statement.value is not None:
            yield statement.target.id, _value(statement.value, tree)


def _beside(name: str, tree: ast.Module, path: Path) -> tuple[ast.ClassDef, ast.Module, Path] | None:
    """A class of this file, or of one beside it from which it is imported."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, tree, path
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            module = (node.module or "").split(".")
            for other in (path.with_name(f"{module[-1]}.py"), ROOT.joinpath(*module).with_suffix(".py")):
                if other != path and other.is_file():
                    return _beside(name, _parsed(other), other)
    return None


def _value(node: ast.expr, tree: ast.Module) -> str:
    """A default as it is written, or the value of a name that the file or one of bench's gives it."""
    if isinstance(node, ast.Name):
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == node.id:
                return ast.unparse(statement.value)
            if isinstance(statement, ast.ImportFrom) and any(alias.name == node.id for alias in statement.names):
                file = Path(__file__).parent / f"{(statement.module or '').rpartition('.')[2]}.py"
                return _value(node, _parsed(file)) if file.is_file() else node.id
    if isinstance(node, ast.Call) and any(key.arg == "default_factory" for key in node.keywords):
        return "{}"
    return ast.unparse(node)


def _columns(written: ast.expr) -> Iterator[tuple[str, str]]:
    """The scores of a metric with their heads, as far as they are written down as constants."""
    for call in ast.walk(written):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Column":
            constants = [one.value for one in call.args[:2] if isinstance(one, ast.Constant)]
            texts = [text for text in constants if isinstance(text, str)]
            if texts:
                yield texts[0], (texts[1:] or [""])[0]


def _variable(name: str, node: ast.ClassDef, tree: ast.Module, path: Path) -> tuple[ast.expr, ast.Module, Path] | None:
    """What a class, or one that it inherits from, says that a variable of it is, with the file where it does."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name and statement.value:
            return statement.value, tree, path
    for base in node.bases:
        found = _beside(ast.unparse(base), tree, path)
        if found is not None and (inherited := _variable(name, *found)) is not None:
            return inherited
    return None

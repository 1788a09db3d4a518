"""The shipped experiments, listed without reading what they hold."""

from __future__ import annotations

from pathlib import Path

from bench import yaml_text

FOLDER = Path(__file__).parent


def experiment_names() -> list[str]:
    """Names of the shipped experiments, tables first, in the order of their numbers."""
    names = [path.stem for path in FOLDER.glob("*.yaml")]
    return sorted(names, key=lambda name: (not name.startswith("table"), len(name), name))


def title_of(name: str) -> str:
    """The title of a shipped experiment, which stands on a line of its own: all the other lines take time to parse."""
    path = FOLDER / f"{name}.yaml"
    line = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("title:"))
    title: str = yaml_text.parse(line, str(path))["title"]
    return title

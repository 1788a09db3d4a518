"""Prompt templates: one text file each, beside the plugin that they belong to, in `prompts/<plugin>/`.

A method's template is looked up for the run's task first, `prompts/<method>/<task>/<name>.txt`, then for any task,
`prompts/<method>/<name>.txt`; then a task's own, `prompts/<task>/<name>.txt` beside the task: `block` (a record as a
history block), `given` (what is known of the target) and `instruction` (one sentence). A file that begins with
`=== system` is a prompt of two parts, the other one after `=== user`; any other is a part of prompts. The new line that
ends a part's last line is not of its text: a blank line there makes the text end with one. `{{name}}` is replaced once
by a value: braces inside review texts stay as they are. What stands between `{{#name}}` and `{{/name}}` is left out
where that value is empty, e.g. the heading of a history that a user does not have; a mark that has a line to itself
leaves no line behind. Neither does a line that is a label and a value, `[Item Title]: {{item_title}}`, where the data
lack the field (`bench.records.Absent`).

Another wording is another folder of such files (`--set prompts=FOLDER`, with `<method>/[<task>/]<name>.txt` and
`<task>/<name>.txt`, the latter for a task's own alone); files that are missing there come from the plugins. A method
with another's templates (`prompts_of`) takes a user's at the other's place, and over them those at its own. What the
templates say is part of a run's identity: those that the method can render for the task, and no others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import ConfigError
from bench.progress import say
from bench.records import Absent

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_SECTION = re.compile(r"\{\{#(?P<name>\w+)\}\}(?P<line>\n)?(?P<text>.*?)\{\{/(?P=name)\}\}(?(line)\n?)", re.DOTALL)
_MARK = re.compile(r"\{\{[#/](\w+)\}\}")
_LABELLED = re.compile(r"[^{}\n]*:[ \t]*\{\{(\w+)\}\}[ \t]*")
"""A line that is a label and a value."""
_NO_PARTS = "the file needs '=== system' as its first line and, below it, a line '=== user'"
_PARTS = re.compile(r"\A=== system\n(?P<system>.*?)\n=== user\n(?P<user>.*)\Z", re.DOTALL)
_OF_TASK = {"history": "block", "given": "given", "instruction": "instruction"}
"""The task's template behind a placeholder of a method's template."""
_OF_TARGET = ("given", "instruction")
"""The task's templates that know the target alone."""
_OF_BLOCK = {"number", "index", "text"}
"""What every history block has a value for."""


def fill(template: str, values: Mapping[str, str], where: str) -> str:
    """Replace every `{{name}}` of `template` by `values[name]`, without the sections of names whose value is empty and
    the lines of those whose value is absent. Raises `ConfigError` for a name without a value."""
    if _sectioned(template):
        template = _without_empty(template, values)
    # Every other piece is a name.
    if absent := frozenset(name for name in _pieces(template)[1::2] if isinstance(values.get(name), Absent)):
        template = _without_lines(template, absent)
    pieces = _pieces(template).copy()
    try:
        pieces[1::2] = [values[name] for name in pieces[1::2]]
    except KeyError as error:
        raise ConfigError(
            f"prompt {where}: no value for {{{{{error.args[0]}}}}} (known here: {', '.join(sorted(values))})"
        ) from None
    return "".join(pieces)


def _without_empty(template: str, values: Mapping[str, str]) -> str:
    """A template with the text of its sections but for those whose value is empty; sections may stand in sections."""

    def kept(section: re.Match[str]) -> str:
        return _without_empty(section["text"], values) if values.get(section["name"]) else ""

    return _SECTION.sub(kept, template)


@lru_cache(1024)
def _without_lines(template: str, absent: frozenset[str]) -> str:
    """A template without the lines that are a label and one of these values."""
    lines = ((line, _LABELLED.fullmatch(line)) for line in template.split("\n"))
    return "\n".join(line for line, shown in lines if shown is None or shown[1] not in absent)


@lru_cache(1024)
def _sectioned(template: str) -> bool:
    return _SECTION.search(template) is not None


@lru_cache(1024)
def _pieces(template: str) -> list[str]:
    return _PLACEHOLDER.split(template)


@lru_cache(1024)
def _sections(template: str) -> tuple[str, str] | None:
    """System and user part of a prompt's template."""
    parts = _PARTS.match(template)
    return parts and (parts["system"], parts["user"])


@dataclass(frozen=True)
class Templates:
    """The templates that a run's method can render, by name; `places` says where each stands among the plugins'."""

    texts: Mapping[str, str]
    places: Mapping[str, str]

    @property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each template by name, as hex."""
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(self.texts.items())}

    def render(self, name: str, values: Mapping[str, str]) -> tuple[str, str]:
        """System and user message of a template. Raises `ConfigError` for an unknown template or a missing value."""
        parts = _sections(self._text(name))
        if parts is None:
            raise ConfigError(f"prompt {self.places[name]}: {_NO_PARTS}")
        system, user = (fill(part, values, self.places[name]) for part in parts)
        return system, user

    def part(self, name: str, values: Mapping[str, str]) -> str:
        """A part of a prompt, e.g. one history block. Raises `ConfigError` as `render` does."""
        return fill(self._text(name), values, self.places[name])

    def holds(self, name: str, placeholder: str) -> bool:
        """Whether a template has a placeholder."""
        return f"{{{{{placeholder}}}}}" in self._text(name)

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def _text(self, name: str) -> str:
        if name not in self.texts:
            known = ", ".join(sorted(self.places[other] for other in self.texts))
            known = known or "none (a package has them where its pyproject.toml names them as package-data)"
            raise ConfigError(f"there is no prompt template '{name}' for this method and task; there are: {known}")
        return self.texts[name]


@dataclass(frozen=True)
class _Template:
    place: str
    text: str

    @property
    def is_prompt(self) -> bool:
        return bool(_PARTS.match(self.text))

    @property
    def placeholders(self) -> set[str]:
        return {*_PLACEHOLDER.findall(self.text), *_MARK.findall(self.text)}


def load(method: Any, method_name: str, task: Any, task_name: str, folder: Path | None = None) -> Templates:
    """The templates that a method, a plugin with its options, can render for a task; those in `folder` over the
    plugins' own.

    Raises `ConfigError` for a folder without templates and for a file that replaces none (a misspelt name), misses
    its two parts or has a placeholder that no template of the plugins has: a second step's prompt must not fail after
    the first step's work.
    """
    owner = getattr(type(method), "prompts_of", method_name)
    home = registry.templates_folder(type(method) if owner == method_name else registry.load("methods", owner), owner)
    tasks_home = registry.templates_folder(type(task), task_name)
    of_task = _read(tasks_home, task_name)
    shipped = of_task | _read(home, owner) | _read(home and home / task_name, f"{owner}/{task_name}")
    found = dict(shipped)
    if folder is not None:
        own = _own(folder)
        found |= _checked(own.get(task_name, {}), of_task, folder)
        for name in dict.fromkeys((owner, method_name)):
            found |= _checked(own.get(name, {}), shipped, folder)
            found |= _checked(own.get(f"{name}/{task_name}", {}), shipped, folder)
    kept = _renderable(found, getattr(method, "templates", None))
    if folder is not None:
        idle = [one.place for one in found.values() if one not in kept.values() and one not in shipped.values()]
        if idle:
            _tell(
                f"prompts: with these options {method_name} does not render {', '.join(idle)} of {folder}, but "
                f"{', '.join(sorted(kept))}"
            )
    return Templates({name: one.text for name, one in kept.items()}, {name: one.place for name, one in kept.items()})


@cache
def _tell(sentence: str) -> None:
    """Once: a run is resolved several times."""
    say(sentence)


def _renderable(found: Mapping[str, _Template], wanted: Sequence[str] | None) -> dict[str, _Template]:
    """The templates that can be rendered: those that are wanted (default: the method's), and those of the task that
    one of them has a placeholder for."""
    kept = {
        name: one
        for name, one in found.items()
        if (name in wanted if wanted is not None else name not in _OF_TASK.values())
    }
    for placeholder, name in _OF_TASK.items():
        # A method that says what it renders says whether it renders history blocks.
        asked = any(placeholder in one.placeholders for one in kept.values())
        if asked and name in found and not (wanted is not None and placeholder == "history"):
            kept[name] = found[name]
    return kept


def _read(folder: Path | None, place: str) -> dict[str, _Template]:
    """The templates in a folder, not in those below it, by name. Raises `ConfigError`."""
    if folder is None:
        return {}
    try:
        return {
            path.stem: _Template(f"{place}/{path.stem}", path.read_text(encoding="utf-8-sig").removesuffix("\n"))
            for path in sorted(folder.glob("*.txt"))
        }
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompts: a template in {folder} cannot be read as UTF-8 text: {error}") from None


def _own(folder: Path) -> dict[str, dict[str, _Template]]:
    """The templates in a user's folder by place and name. Raises `ConfigError` for a file at no plugin's place."""
    own: dict[str, dict[str, _Template]] = {}
    methods, tasks = registry.names("methods"), registry.names("tasks")
    for path in sorted(folder.rglob("*.txt")):
        if not path.is_file():
            # A pipe would be waited for.
            raise ConfigError(f"prompts: {path} is not a file; move it out of the folder of templates")
        place = path.parent.relative_to(folder).as_posix()
        plugin, _, task = place.partition("/")
        if plugin not in (*methods, *tasks) or (task and (plugin not in methods or task not in tasks)):
            wrong, known = (task, tasks) if plugin in (*methods, *tasks) else (plugin, [*methods, *tasks])
            near = registry.near_match(wrong, known)
            raise ConfigError(
                f"prompts: {path} replaces no template{near} Its place is METHOD/NAME.txt, METHOD/TASK/NAME.txt or "
                "TASK/NAME.txt, with the name of a template there"
            )
        own.setdefault(place, _read(path.parent, place))
    if not own:
        raise ConfigError(
            f"prompts: {folder} is not a folder of templates; it needs METHOD/NAME.txt, e.g. rag/write.txt"
        )
    return own


def _checked(own: Mapping[str, _Template], shipped: Mapping[str, _Template], folder: Path) -> Mapping[str, _Template]:
    """A user's templates, checked against those that they replace. Raises `ConfigError`."""
    for name, one in own.items():
        path = folder / f"{one.place}.txt"
        if name not in shipped:
            near = registry.near_match(name, shipped)
            raise ConfigError(f"prompts: {path} replaces no template{near} There are: {', '.join(sorted(shipped))}")
        if shipped[name].is_prompt and not one.is_prompt:
            raise ConfigError(f"prompts: {path}: {_NO_PARTS}")
        if (alone := _MARK.search(_without_empty(one.text, dict.fromkeys(one.placeholders, "x")))) is not None:
            raise ConfigError(
                f"prompts: {path}: {alone[0]} stands alone; a section begins with {{{{#{alone[1]}}}}} and ends with "
                f"{{{{/{alone[1]}}}}}"
            )
        known = _known(name, shipped)
        if unknown := sorted(one.placeholders - known):
            there = f"there are: {', '.join(sorted(known))}" if known else "it can have none"
            raise ConfigError(f"prompts: {path}: there is no value {{{{{unknown[0]}}}}}; {there}")
    return own


def _known(name: str, shipped: Mapping[str, _Template]) -> set[str]:
    """The placeholders that a template may have: those of the plugins' templates of its kind (prompts, blocks), and
    what every one of that kind has a value for."""
    one = shipped[name]
    if name in _OF_TARGET:
        return one.placeholders
    alike = [other for key, other in shipped.items() if key not in _OF_TARGET and other.is_prompt == one.is_prompt]
    known = {placeholder for other in alike for placeholder in other.placeholders}
    if not one.is_prompt:
        return known | _OF_BLOCK
    given = shipped["given"].placeholders if "given" in shipped else set()
    return known | given | {placeholder for placeholder, part in _OF_TASK.items() if part in shipped}

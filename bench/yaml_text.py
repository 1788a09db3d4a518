"""YAML as settings are written in it: plain values as YAML 1.2's core schema reads them, and no tags beyond those.

So `1e-2` is a number and `012` is twelve; `no`, `on`, `1_000`, `1:30` and `2020-01-01` are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from bench.errors import ConfigError

LARGEST = 1 << 20
"""Bytes of a file: whatever is larger holds no settings."""
DEEPEST = 32
"""Levels of lists and mappings in each other."""
MOST_VALUES = 100_000
"""Values of a text, those behind an alias counted each time it is used."""


class NotYAMLError(ConfigError):
    """A text that does not follow YAML's grammar."""


class _Refused(yaml.YAMLError):
    """A text that is YAML and cannot be settings."""


class _Loader(yaml.SafeLoader):
    # Both are of this class alone: PyYAML's are those of YAML 1.1, with dates, sets and bytes.
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[str | None, Any]] = {None: yaml.SafeLoader.construct_undefined}

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)

    def number(self, node: yaml.ScalarNode) -> float:
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    def truth(self, node: yaml.ScalarNode) -> bool:
        return {"true": True, "false": False}[str(self.construct_scalar(node)).lower()]


_CORE = "tag:yaml.org,2002:"
for _name, _pattern, _first, _construct in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""], yaml.SafeLoader.construct_yaml_null),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"], _Loader.truth),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"], _Loader.whole_number),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
        _Loader.number,
    ),
    ("str", None, [], yaml.SafeLoader.construct_yaml_str),
    ("seq", None, [], yaml.SafeLoader.construct_yaml_seq),
    ("map", None, [], yaml.SafeLoader.construct_yaml_map),
    ("merge", r"<<", ["<"], None),
):
    if _pattern is not None:
        _Loader.add_implicit_resolver(_CORE + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
    if _construct is not None:
        _Loader.add_constructor(_CORE + _name, _construct)


def parse(text: str, where: str) -> Any:
    """The value that a YAML text holds: None, true or false, numbers, text, lists and mappings. Raises `NotYAMLError`
    or, for a key that stands twice, a value that holds itself, and what is too deep or too much, `ConfigError`; both
    begin with `where`."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _weigh(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ConfigError(f"{where}: it is nested more than {DEEPEST} deep") from None
    except (ValueError, KeyError, TypeError) as error:
        # A tag that does not fit its value: !!int x.
        raise ConfigError(f"{where}: a value does not fit its tag ({' '.join(str(error).split())[:100]})") from None
    except yaml.YAMLError as error:
        grammar = (
            yaml.reader.ReaderError,
            yaml.scanner.ScannerError,
            yaml.parser.ParserError,
            yaml.composer.ComposerError,
        )
        kind = NotYAMLError if isinstance(error, grammar) else ConfigError
        raise kind(f"{where}: {_problem(error)}") from None


def read(path: Path) -> Any:
    """The value in a YAML file. Raises `ConfigError` as `parse` does, and for a file that cannot be read."""
    where = f"{path} cannot be read as YAML"
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigError(f"{where}: it is larger than {LARGEST >> 20} MiB, which no file of settings is")
        return parse(content.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: it is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None


def _weigh(node: yaml.Node, seen: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """How many values a node holds and how deep they go; `seen` has what is known. Raises `_Refused`."""
    if depth > DEEPEST:
        raise _Refused(f"it is nested more than {DEEPEST} deep, or an alias holds itself{_place(node.start_mark)}")
    if id(node) not in seen:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in names:
                    raise _Refused(f"the key '{key.value}' stands there twice{_place(key.start_mark)}; keep one")
                names.add((key.tag, key.value))
            children = [child for pair in node.value for child in pair]
        below = [_weigh(child, seen, depth + 1) for child in children]
        seen[id(node)] = 1 + sum(size for size, _ in below), 1 + max((height for _, height in below), default=0)
    size, height = seen[id(node)]
    if size > MOST_VALUES or height > DEEPEST:
        raise _Refused(f"it holds more than {MOST_VALUES:,} values or {DEEPEST} levels{_place(node.start_mark)}")
    return size, height


def _problem(error: yaml.YAMLError) -> str:
    """What PyYAML says over several lines, in one."""
    if isinstance(error, yaml.MarkedYAMLError):
        said = [part for part in (error.context, error.problem) if part]
        return f"{', '.join(said)}{_place(error.problem_mark or error.context_mark)}"
    return " ".join(str(error).split())


def _place(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"

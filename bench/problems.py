"""Values that cannot be settings, each as one sentence, and bounds that say their reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from pydantic import AfterValidator, BaseModel

from bench.errors import ConfigError

DEEPEST = 32
"""Levels of mappings and lists in a setting."""
LARGEST = 2**63 - 1
"""A whole number that an engine, a random generator and a file all take."""

_WHOLE, _NUMBER, _TRUTH, _LIST = "a whole number", "a number", "true or false", "a list, e.g. [a, b]"
_MAPPING = "a mapping, e.g. {{key: value}}"
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    "int_parsing_size": "a whole number of fewer digits",
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), _TRUTH),
    "string_type": "text (a name that looks like a number or a truth value needs quotes)",
    "path_type": "a path",
    **dict.fromkeys(("tuple_type", "list_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"), _MAPPING),
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text of the form {pattern}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
"""What a value has to be, by pydantic's type of the problem."""


def sentence(problem: Mapping[str, Any], prefix: str = "") -> str:
    """A problem that pydantic found as "where: must be what, got value"; `prefix` goes before the name."""
    where = prefix + ".".join(str(part) for part in problem["loc"])
    context = {key: f"{item:g}" if isinstance(item, float) else item for key, item in problem.get("ctx", {}).items()}
    kind = problem["type"]
    if kind == "missing":
        return f"{where}: is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: there is no such key"
    said = (
        f"must be {_KINDS[kind].format(**context)}" if kind in _KINDS else problem["msg"].removeprefix("Value error, ")
    )
    given = short(problem["input"])
    told = kind == "value_error" and (given in said or isinstance(problem["input"], Mapping))
    # A sentence of our own says by itself what it is about.
    place = where or ("" if kind == "value_error" else "the file")
    return (f"{place}: " if place else "") + said + ("" if told else f", got {given}")


def short(value: Any) -> str:
    """A value as Python shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"


def check_value(value: Any, where: str, depth: int = 0) -> None:
    """Raise `ConfigError` for what a setting cannot be, wherever it stands in it: JSON has to hold it."""
    if depth > DEEPEST:
        raise ConfigError(f"{where[:100]}: it is nested more than {DEEPEST} deep, or holds itself")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {short(key)} is not text; write it in quotes")
            check_value(key, f"a key of {where}", depth)
            check_value(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_value(item, where, depth + 1)
    elif isinstance(value, str):
        if not _is_text(value):
            raise ConfigError(f"{where}: {short(value)} holds a character that no text has (NUL or half a character)")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where}: must be a finite number, got {value}")
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            raise ConfigError(f"{where}: must be a whole number of at most 63 bits, got one of {value.bit_length()}")
    elif value is not None and not isinstance(value, PurePath | BaseModel):
        raise ConfigError(
            f"{where}: cannot be a {type(value).__name__}; write text, a number, true or false, a list or a mapping"
        )


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def at_most(largest: float, reason: str | Callable[[Any], str]) -> AfterValidator:
    """Refuses a number that can only be a mistake, with the reason why (of the number, where it is a function)."""

    def check(value: Any) -> Any:
        if value is not None and value != "model" and value > largest:
            raise ValueError(f"must be at most {largest:,}: {reason(value) if callable(reason) else reason}")
        return value

    return AfterValidator(check)

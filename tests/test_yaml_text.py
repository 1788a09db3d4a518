"""How settings are read: YAML 1.2's plain values, and nothing that is more than those."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ConfigError
from bench.yaml_text import LARGEST, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, text) for text in ("no", "on", "Yes", "1_000", "1:30", "2020-13-45", "2020-01-01", "inf", "0b1", "=")],
        *[("1e-2", 0.01), ("-1.5E+3", -1500.0), (".5", 0.5), ("1.", 1.0), ("-.inf", float("-inf")), ("'1e-2'", "1e-2")],
        *[
            ("0x10", 16),
            ("0o17", 15),
            ("012", 12),
            ("+7", 7),
            ("true", True),
            ("FALSE", False),
            ("~", None),
            ("", None),
        ],
        ("{a: &x [1, 2e1], b: *x}", {"a": [1, 20.0], "b": [1, 20.0]}),
        ("{a: &x {k: 1}, b: {<<: *x, k: 2}}", {"a": {"k": 1}, "b": {"k": 2}}),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse(text, "here") == value
    assert type(parse(text, "here")) is type(value)


LAUGHS = "\n".join(["a0: &a0 [1, 2]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 20))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!int x", "a value does not fit its tag"),
        ("!!bool maybe", "a value does not fit its tag"),
        ("!!timestamp 2020-13-45", "could not determine a constructor"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("!!set {a}", "could not determine a constructor"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("!!seq {a: 1}", "expected a sequence node"),
        ("9" * 5000, "a value does not fit its tag"),
        ("a: 1\nb: {c: 1, c: 2}", r"the key 'c' stands there twice \(line 2, column 11\)"),
        ("? [a]\n: 1", "found unhashable key"),
        ("&a [*a]", "an alias holds itself"),
        ("a: &a {b: *a}", "an alias holds itself"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("[" * 5000, "nested more than 32 deep"),
        (LAUGHS, "it holds more than 100,000 values"),
        ("a:\n\tb: 1", r"cannot start any token \(line 2, column 1\)"),
        ("a: \x00", "special characters are not allowed"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("*nothing", "found undefined alias"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^here: .*{message}") as caught:
        parse(text, "here")
    assert "\n" not in str(caught.value)


def test_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    with path.open("wb") as file:
        os.truncate(file.fileno(), LARGEST + 1)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 3\)"):
        read(path)
    with pytest.raises(ConfigError, match="Not a directory"):
        read(path / "inside")

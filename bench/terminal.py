"""Text for a terminal: what users, models and files wrote is shown, and steers nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tabs and new lines, what turns the direction of text, and what no encoding takes."""


def visible(text: str) -> str:
    r"""Text that can be sent to a terminal: an escape character in it reads "\x1b"."""
    return _STEERING.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def show(text: object) -> None:
    """Print text on standard output, as `visible` makes it."""
    print(visible(str(text)))


def show_json(value: Any) -> None:
    """Print a value on standard output as one JSON document in ASCII; a number that JSON has not is null."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value

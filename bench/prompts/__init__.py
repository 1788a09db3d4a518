"""Prompt templates (one text file each, beside this module) and how many history blocks fit a budget.

A template has a `=== system` and a `=== user` part; `block.txt` is the body of one history block. `{{name}}` is
replaced once by a value: braces inside review texts stay as they are. Another wording is another folder of such
files (`--set prompts=FOLDER`); files it lacks come from here. What the templates say is part of a run's identity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ConfigError

FOLDER = Path(__file__).parent
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_NO_PARTS = "the file needs '=== system' as its first line and, below it, a line '=== user'"
_PARTS = re.compile(r"\A=== system\n(?P<system>.*?)\n=== user\n(?P<user>.*)\Z", re.DOTALL)


def fill(template: str, values: Mapping[str, str], where: str) -> str:
    """Replace every `{{name}}` of `template` by `values[name]`. Raises `ConfigError` for a name without a value."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            raise ConfigError(f"prompt {where}: no value for {{{{{name}}}}} (known here: {', '.join(sorted(values))})")
        return values[name]

    return _PLACEHOLDER.sub(value, template)


@dataclass(frozen=True)
class Templates:
    """The prompt templates of a run, by name."""

    texts: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path | None = None) -> Templates:
        """Read the shipped templates, those in `folder` over them. Raises `ConfigError` for a folder without
        templates and for a file that replaces none (a misspelt name), lacks its two parts or has a placeholder
        that no shipped template has: a second step's prompt must not fail after the first step's work."""
        shipped = _read(FOLDER)
        return cls(shipped if folder is None else shipped | _own(folder, shipped))

    @property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each template, as hex."""
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(self.texts.items())}

    def render(self, name: str, values: Mapping[str, str]) -> tuple[str, str]:
        """System and user message of a template. Raises `ConfigError` for an unknown template or a missing value."""
        parts = _PARTS.match(self._text(name))
        if parts is None:
            raise ConfigError(f"prompt {name}: {_NO_PARTS}")
        return fill(parts["system"], values, name), fill(parts["user"], values, name)

    def block(self, values: Mapping[str, str], name: str = "block") -> str:
        """One history block."""
        return fill(self._text(name), values, name)

    def _text(self, name: str) -> str:
        if name not in self.texts:
            raise ConfigError(f"there is no prompt template '{name}'; there are: {', '.join(sorted(self.texts))}")
        return self.texts[name]


def _own(folder: Path, shipped: Mapping[str, str]) -> dict[str, str]:
    """The templates in a user's folder, checked against the shipped ones."""
    own = _read(folder)
    if not own:
        raise ConfigError(f"prompts: {folder} is not a folder of templates; it needs NAME.txt for {', '.join(shipped)}")
    for name, text in own.items():
        path = folder / f"{name}.txt"
        if name not in shipped:
            raise ConfigError(f"prompts: {path} replaces no template; there are: {', '.join(shipped)}")
        prompts = {other: bool(_PARTS.match(shipped[other])) for other in shipped}
        if prompts[name] and not _PARTS.match(text):
            raise ConfigError(f"prompts: {path}: {_NO_PARTS}")
        alike = [shipped[other] for other in shipped if prompts[other] == prompts[name]]
        known = set(_PLACEHOLDER.findall("".join(alike)))
        unknown = sorted(set(_PLACEHOLDER.findall(text)) - known)
        if unknown:
            raise ConfigError(
                f"prompts: {path}: there is no value {{{{{unknown[0]}}}}}; there are: {', '.join(sorted(known))}"
            )
    return own


def _read(folder: Path) -> dict[str, str]:
    try:
        return {path.stem: path.read_text(encoding="utf-8").rstrip("\n") for path in sorted(folder.glob("*.txt"))}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompts: a template in {folder} cannot be read as UTF-8 text: {error}") from None


def fitting(offered: int, fits: Callable[[int], bool]) -> int:
    """The largest n <= `offered` with `fits(n)`, where fitting n blocks implies fitting fewer (a bisection: each
    probe renders and tokenises a prompt). 0 if not even one fits."""
    low, high = 0, offered
    if offered and fits(offered):
        return offered
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def longest_prefix(text: str, fits: Callable[[str], bool]) -> str:
    """The longest prefix of `text`, cut at a space where there is one, for which `fits` holds; "" if none does.

    Adding characters can save a token, so `fits` is only nearly monotone: the result fits, and no more than a
    few characters longer would.
    """
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(text[:middle]):
            low = middle
        else:
            high = middle - 1
    prefix = text[:low]
    if low < len(text) and text[low] != " " and " " in prefix:
        prefix = prefix[: prefix.rindex(" ")]
    while prefix and not fits(prefix):
        prefix = prefix.rpartition(" ")[0]
    return prefix

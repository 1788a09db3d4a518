"""Names to plugins: methods, retrievers and metrics.

A built-in is found by its file name (`dep` is the one class in `methods/dep.py`) and imported on first use; an
outsider's plugin by its entry point in the group `bench.methods`, `bench.retrievers` or `bench.metrics`. Listing
names imports none of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import ConfigError, PluginError

GROUPS = ("methods", "retrievers", "metrics")
_REQUIRED = {
    "methods": ("properties", "steps"),
    "retrievers": ("rank",),
    "metrics": ("columns", "statistics", "check", "signature", "rows", "aggregate"),
}


def near_match(name: str, names: Iterable[str]) -> str:
    """How a sentence about an unknown name ends: "; did you mean 'x'?" with the name most like it, or "."."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else "."


def builtin_names(group: str) -> list[str]:
    """Names of the plugins in this repository."""
    package = importlib.import_module(group)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def _outside(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of other packages. Raises `PluginError` where two packages, or one and a built-in, share a name:
    which of them a run meant could not be told from its record."""
    builtin = builtin_names(group)
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in _entry_points(f"bench.{group}", importlib.metadata.entry_points, tuple(sys.path)):
        package = point.dist.name if point.dist else "an unknown package"
        if point.name in builtin:
            raise PluginError(
                f"package {package} registers '{point.name}' in bench.{group}, the name of a built-in; "
                f"a built-in cannot be replaced: rename it there or uninstall {package}"
            )
        if point.name in found and found[point.name].value != point.value:
            raise PluginError(
                f"two packages register '{point.name}' in bench.{group} ({found[point.name].value} and {point.value}); "
                "uninstall one of them"
            )
        found[point.name] = point
    return found


@cache
def _entry_points(
    group: str, find: Callable[..., Iterable[importlib.metadata.EntryPoint]], _: tuple[str, ...]
) -> list[importlib.metadata.EntryPoint]:
    """The entry points of a group; reading every installed package's takes milliseconds, and a table builds dozens of
    configurations. The path they are searched on is part of what is remembered."""
    return list(find(group=group))


def names(group: str) -> list[str]:
    """Names of all plugins of a group, built-ins first."""
    return builtin_names(group) + sorted(_outside(group))


def load(group: str, name: str) -> type[Any]:
    """The plugin's class. Raises `PluginError` for an unknown name or a class that breaks its protocol."""
    outside = _outside(group)
    if name in builtin_names(group):
        cls = _only_class(f"{group}.{name}")
    elif name in outside:
        try:
            cls = outside[name].load()
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{group[:-1]} '{name}' ({outside[name].value}) cannot be imported: {error}") from error
    else:
        known = names(group)
        raise PluginError(f"there is no {group[:-1]} '{name}'{near_match(name, known)} There are: {', '.join(known)}")
    if not inspect.isclass(cls):
        raise PluginError(f"{group[:-1]} '{name}' ({outside[name].value}) must be a class, it is {cls!r}")
    missing = [attribute for attribute in _REQUIRED[group] if not hasattr(cls, attribute)]
    if missing or not dataclasses.is_dataclass(cls):
        lacks = ", ".join(missing) if missing else "@dataclass(frozen=True)"
        raise PluginError(f"{group[:-1]} '{name}' ({cls.__module__}.{cls.__qualname__}) lacks {lacks}")
    return cls


def _only_class(module_name: str) -> type[Any]:
    module = importlib.import_module(module_name)
    classes = [
        cls
        for cls_name, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module_name and not cls_name.startswith("_")
    ]
    if len(classes) != 1:
        raise PluginError(f"{module_name.replace('.', '/')}.py must define one public class, it defines {len(classes)}")
    return classes[0]


def create(group: str, name: str, options: Mapping[str, Any], fidelity: str = "paper") -> Any:
    """A plugin with its options set.

    With `fidelity="official"` the options in the class's `official` mapping are the defaults: what the authors'
    released code does where it differs from the paper. Raises `ConfigError` for an unknown option or a bad value.
    """
    from pydantic import TypeAdapter, ValidationError

    cls = load(group, name)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = f"Its options: {', '.join(known)}" if known else "It has none"
        raise ConfigError(f"{name}.{unknown[0]} is not an option of {name}{near_match(unknown[0], known)} {has}")
    if fidelity == "official":
        options = {**getattr(cls, "official", {}), **options}
    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name}.{where}: {first['msg']}, got {first['input']!r}") from None


def options_of(plugin: Any) -> dict[str, Any]:
    """All options of a plugin, defaults included, ready for JSON."""
    from pydantic import TypeAdapter

    values = TypeAdapter(type(plugin)).dump_python(plugin, mode="json")
    return {field.name: values[field.name] for field in dataclasses.fields(plugin) if field.init}


def code_of(plugin: Any) -> str:
    """SHA-256 of the file that defines a plugin: an edited method is another method, old texts are not its own."""
    path = sys.modules[type(plugin).__module__].__file__
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else type(plugin).__qualname__

"""Names to plugins: tasks, layouts of data, methods, retrievers, metrics and backends.

A built-in is found by its file name (`dep` is the one plugin in `methods/dep.py`) and imported on first use; a task's
name has hyphens where its file has underscores (`lamp-3` in `tasks/lamp_3.py`). An outsider's plugin is found by its
entry point in the group `bench.methods`, `bench.retrievers` and so on. Listing names imports no plugin.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

HOMES = {
    "tasks": "bench.tasks",
    "layouts": "bench.data.layouts",
    "methods": "bench.methods",
    "retrievers": "bench.retrievers",
    "metrics": "bench.metrics",
    "backends": "bench.backends",
}
"""Where the built-ins of each group lie."""
GROUPS = tuple(HOMES)
_REQUIRED = {
    "tasks": (
        *("target", "grouped", "timed", "long_fields", "metrics", "max_new_tokens"),
        *("query", "document", "about", "shown", "shown_record"),
    ),
    "layouts": ("task", "form", "categories", "read"),
    "methods": ("properties", "steps"),
    "retrievers": ("rank",),
    "metrics": ("columns", "statistics", "check", "signature", "rows", "aggregate"),
    "backends": (
        *("settings", "takes_vectors", "applies_template", "timing"),
        *("check", "device", "submit", "completed", "close"),
    ),
}


def near_match(name: str, names: Iterable[str]) -> str:
    """How a sentence about an unknown name ends: "; did you mean 'x'?" with the name most like it, or "."."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else "."


def builtin_names(group: str) -> list[str]:
    """Names of the plugins in this repository."""
    return list(_builtin_names(group))


@cache
def _builtin_names(group: str) -> tuple[str, ...]:
    """The folders are read once: a table builds dozens of configurations."""
    # Found, not imported: a list of names needs none of what the package needs.
    package = importlib.util.find_spec(HOMES[group])
    assert package is not None
    files = (module.name for module in pkgutil.iter_modules(package.submodule_search_locations))
    names = (name for name in files if not name.startswith("_"))
    return tuple(sorted(name.replace("_", "-") if group == "tasks" else name for name in names))


def outsiders(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of other packages by name; none is imported. Raises `PluginError` where two packages, or one and a
    built-in, share a name: which of them a run meant could not be told from its record."""
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
    return builtin_names(group) + sorted(outsiders(group))


def load(group: str, name: str) -> type[Any]:
    """The plugin's class. Raises `PluginError` for an unknown name or a class that breaks its protocol."""
    outside = outsiders(group)
    if name in builtin_names(group):
        cls = _builtin(group, name)
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
    # A backend is an engine that runs, not a set of options.
    if missing or (group != "backends" and not dataclasses.is_dataclass(cls)):
        needed = ", ".join(missing) if missing else "@dataclass(frozen=True)"
        raise PluginError(f"{group[:-1]} '{name}' ({cls.__module__}.{cls.__qualname__}) lacks {needed}")
    columns: Any = getattr(cls, "columns", ())
    if group == "metrics" and not all(hasattr(column, "better") for column in columns):
        raise PluginError(
            f"metric '{name}' ({cls.__module__}.{cls.__qualname__}): its columns must be bench.protocols.Column, e.g. "
            f'Column("{columns[0]}")'
        )
    return cls


def _builtin(group: str, name: str) -> type[Any]:
    """The one public class of a built-in's file, or the one of several that is what the group asks for."""
    module = importlib.import_module(f"{HOMES[group]}.{name.replace('-', '_')}")
    classes = [
        cls
        for cls_name, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and not cls_name.startswith("_")
    ]
    if len(classes) > 1:
        classes = [cls for cls in classes if all(hasattr(cls, attribute) for attribute in _REQUIRED[group])]
    if len(classes) != 1:
        raise PluginError(f"{module.__file__} must define one public {group[:-1]}, it defines {len(classes)}")
    return classes[0]


def create(group: str, name: str, options: Mapping[str, Any], fidelity: str = "paper") -> Any:
    """A plugin with its options set.

    With `fidelity="official"` the options in the class's `official` mapping are the defaults: what the authors'
    released code does where it differs from the paper. Raises `ConfigError` for an unknown option or a bad value.
    """
    from pydantic import ValidationError

    from bench.problems import check_value, sentence, short

    cls = load(group, name)
    known = option_names(group, name)
    unknown = sorted(set(map(str, options)) - set(known))
    if unknown:
        has = f"Its options: {', '.join(known)}" if known else "It has none"
        raise ConfigError(f"{name}.{unknown[0]} is not an option of {name}{near_match(unknown[0], known)} {has}")
    if fidelity == "official":
        options = {**getattr(cls, "official", {}), **options}
    check_value(options, name)
    try:
        plugin = _adapter(cls).validate_python(dict(options))
    except ValidationError as error:
        raise ConfigError(sentence(error.errors()[0], f"{name}.")) from None
    for option, value in options.items():
        # What pydantic takes: true as 1, and the text "inf" as a number.
        kept = getattr(plugin, option)
        number = isinstance(kept, int | float) and not isinstance(kept, bool)
        if number and (isinstance(value, bool) or not math.isfinite(kept)):
            raise ConfigError(f"{name}.{option}: must be a finite number, got {short(value)}")
    return plugin


def option_names(group: str, name: str) -> list[str]:
    """The names of a plugin's options; not for backends. Raises `PluginError`."""
    return [field.name for field in dataclasses.fields(load(group, name)) if field.init]


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """What checks and writes the options of a plugin; to make one takes milliseconds."""
    from pydantic import TypeAdapter

    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def options_of(plugin: Any) -> dict[str, Any]:
    """All options of a plugin, defaults included, ready for JSON."""
    values = _adapter(type(plugin)).dump_python(plugin, mode="json")
    return {field.name: values[field.name] for field in dataclasses.fields(plugin) if field.init}


def code_of(plugin: Any) -> str:
    """SHA-256 of the files that define a plugin, its own, those beside it of the classes that it inherits from, and
    `_<name>*.py` beside each: an edited method is another method, old texts are not its own."""
    path = sys.modules[type(plugin).__module__].__file__
    if not path:
        return type(plugin).__qualname__
    places = (getattr(sys.modules[kind.__module__], "__file__", None) for kind in type(plugin).__mro__)
    files = dict.fromkeys(Path(place) for place in places if place and Path(place).parent == Path(path).parent)
    digest = hashlib.sha256()
    for own in files:
        digest.update(own.read_bytes())
        for part in sorted(own.parent.glob(f"_{own.stem}*.py")):
            digest.update(part.read_bytes())
    return digest.hexdigest()


def templates_folder(cls: type[Any], name: str) -> Path | None:
    """Where the templates of a plugin lie, `prompts/<name>/` beside its file; None for a class without a file."""
    path = sys.modules[cls.__module__].__file__
    return Path(path).parent / "prompts" / name if path else None

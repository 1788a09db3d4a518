"""Whatever stands in a configuration, an experiment, a setting or a flag: an exit code and one line, never a traceback.

`BENCH_FUZZ_EXAMPLES` sets how many examples each test takes. tests/campaign/fuzz_commands.py runs many more of them,
as commands.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import cli, registry
from bench.config import RunConfig, build, fields_of, parse_setting, read_config
from bench.errors import BenchError
from bench.experiments.spec import read_experiment

EXAMPLES = int(os.environ.get("BENCH_FUZZ_EXAMPLES", "75"))
"""Of each of the four tests."""

quickly = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# ---- what people and programs write

ODD = (
    *(
        "",
        " ",
        "~nosuchuser",
        "~nosuchuser/x",
        "a\nb",
        "a\0b",
        "\udcff",
        "x" * 300,
        "x/" * 2100,
        "FIFO",
    ),
    *(
        "FOLDER",
        "FILE/x",
        "FILE",
        "-1",
        "0",
        "1",
        str(2**63),
        str(10**30),
        "9" * 5000,
        "1e-2",
        "1e400",
        "nan",
        ".inf",
    ),
    *("-.inf", "no", "on", "null", "true", "1_000", "0x10", "012", "1:30", "2020-13-45", "2020-01-01", "!!int x"),
    *("!!binary aGk=", "!!python/name:os.system", "!!set {a}", "&a [*a]", "*a", "[" * 1000, "{a: 1, a: 2}", "{1: 2}"),
    *(
        "[",
        "a: b: c",
        "\tx",
        "%x",
        "@x",
        "`",
        "{{x}}",
        "org/name",
        "org/name@rev",
        "python:",
        "python:os/x",
        "http://[",
        "demo",
    ),
    *(
        "{a: .nan}",
        "[.nan]",
        "[[1]]",
        "[no]",
        "{a: {b: c}}",
        '"\\ud800"',
        '"\\0"',
        "é",
        "🙂",
        "rag",
        "dep",
        "hashed-ngrams?x=1",
    ),
)
# By number: what Hypothesis says of a strategy would hold all of them. Commands write where a text says: no text leads
# out of the folder that the tests run in.
TEXTS = st.one_of(
    st.integers(0, len(ODD) - 1).map(ODD.__getitem__),
    st.text(st.characters(exclude_characters="/~.", exclude_categories=["Cs"]), max_size=20),
)
VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.binary(max_size=3), TEXTS),
        st.sampled_from([2**63, 10**30, -1, 0, 1, 2.5, 1e-3]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.frozensets(st.integers(), max_size=2),
        st.dictionaries(st.one_of(TEXTS, st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=4,
)


def keys() -> list[str]:
    """Every key of a configuration by its dotted name, options of plugins among them, and some that are none."""
    found = [name for name, _, _ in fields_of(RunConfig)]
    for group in registry.GROUPS:
        for name in registry.builtin_names(group):
            if group == "backends":
                found += [key for key, _, _ in fields_of(registry.load(group, name).settings, f"{name}.")]
            else:
                found += [name, *(f"{name}.{option}" for option in registry.option_names(group, name))]
    return [*found, "peers", "train", "vllm", "options", "zzz", "", ".", "a..b", "openai.extra_body.x", "x." * 40]


NAMES = keys()
KEYS = st.integers(0, len(NAMES) - 1).map(NAMES.__getitem__)


@st.composite
def mappings(draw: st.DrawFn) -> dict[Any, Any]:
    """Settings as a file holds them: a few keys with values that seldom suit them."""
    made: dict[Any, Any] = {}
    for key in draw(st.lists(st.one_of(KEYS, VALUES.filter(_hashable)), max_size=3)):
        value = draw(VALUES)
        if isinstance(key, str) and key.count(".") == 1:
            section, _, key = key.partition(".")
            value = {key: value}
            key = section
        made[key] = value
    return made


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


SETTINGS = st.builds("{}{}{}".format, KEYS, st.sampled_from(["=", "=", "=", "", " = "]), TEXTS)


# ---- configurations and experiments


def one_line(error: BenchError) -> None:
    assert str(error).strip()


@quickly
@given(mappings())
def test_settings_make_a_configuration_or_a_sentence(made: dict[Any, Any]) -> None:
    try:
        config = build({"method": "rag"}, made)
    except BenchError as error:
        one_line(error)
    else:
        config.model_dump_json()


@quickly
@given(st.lists(SETTINGS, min_size=1, max_size=3))
def test_set_makes_a_configuration_or_a_sentence(texts: list[str]) -> None:
    try:
        build({"method": "rag"}, *map(parse_setting, texts))
    except BenchError as error:
        one_line(error)


SHIPPED = [
    path.read_text(encoding="utf-8")
    for path in sorted(Path(read_experiment.__code__.co_filename).parent.glob("*.yaml"))
]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of settings or of an experiment: odd values, a shipped one with a part of it replaced, or bytes."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind == 1:
        with contextlib.suppress(yaml.YAMLError, TypeError):
            return yaml.dump(draw(mappings()), allow_unicode=True).encode("utf-8", "surrogatepass")
    text = SHIPPED[draw(st.integers(0, len(SHIPPED) - 1))]
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 20)))
    return f"{text[:start]}{draw(TEXTS)}{text[end:]}".encode("utf-8", "surrogatepass")


@quickly
@given(content=files())
def test_files_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzzed.yaml"
    path.write_bytes(content)
    for read in (lambda: build({"method": "rag"}, read_config(str(path))), lambda: read_experiment(str(path))):
        try:
            read()
        except BenchError as error:
            one_line(error)


# ---- commands


def parsers() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """The parser of every command and action, by its words."""
    found: dict[tuple[str, ...], argparse.ArgumentParser] = {}

    def walk(words: tuple[str, ...], parser: argparse.ArgumentParser) -> None:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for action in below:
            for name, inner in action.choices.items():
                walk((*words, name), inner)
        if not below:
            found[words] = parser

    walk((), cli.parser())
    return found


PARSERS = {words: parser for words, parser in parsers().items() if words not in {("doctor",), ("data", "fetch")}}
"""Without what asks the network."""
LAST: dict[tuple[str, ...], list[str]] = {
    ("run",): ["--dry-run", "--set", "limit=1"],
    **{(name,): ["--set", "zzz=1"] for name in ("train", "table", "time")},
    ("data", "stats"): ["--task", "zzz"],
    ("report",): ["--instances", "0"],
}
"""What ends a command's line so that it starts no engine and is quick: a dry run, or a value that is refused once the
others are read."""
GOOD = {
    **{key: ["copy-demo", "copy"] for key in ("run", "runs", "against")},
    **{"config": ["demo"], "dataset": ["demo"], "experiment": ["table1", "figure2"], "task": ["reviews"]},
    **{"retriever": ["bm25", "recency"], "backend": ["vllm"], "model": ["python:bench/demo/model"]},
    **{"results": ["results"], "goldens": ["results/golden"], "instance": ["Books/test/"], "out": ["FOLDER/page"]},
    **{"method": ["rag", "copy"], "by": ["rouge1"], "set": ["k=4", "top_p=5e-1"]},
}
"""Values that suit a flag."""


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """A command with some of its own flags, and values that seldom suit them."""
    words = draw(st.sampled_from(sorted(PARSERS)))
    line = [*words]
    for action in PARSERS[words]._actions:
        wanted = action.required or draw(st.integers(0, 3)) == 0
        if not wanted or isinstance(action, argparse._HelpAction):
            continue
        line += action.option_strings[-1:]
        good = sorted(action.choices) if action.choices else GOOD.get(action.dest, ["0", "1"])
        odd = SETTINGS if action.dest == "set" else TEXTS
        values = odd if draw(st.integers(0, 2)) == 0 else st.sampled_from(good)
        count = 0 if action.nargs == 0 else action.nargs if isinstance(action.nargs, int) else 1
        line += [draw(values) for _ in range(count)]
    return [*line, *LAST.get(words, [])]


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """A current folder with a finished run, a file, a folder and a pipe, and no hub."""
    from huggingface_hub import constants

    if not (folder / "FIFO").exists():
        os.mkfifo(folder / "FIFO")
        (folder / "FOLDER").mkdir()
        (folder / "FILE").touch()
        shutil.copytree(Path(__file__).parent / "schema1" / "runs", folder / "results" / "runs")
    reached, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        constants.HF_HUB_OFFLINE = reached


def outcome(command: Sequence[str]) -> tuple[int, str]:
    """Exit code and standard error of a command in this process."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main(command)
        except SystemExit as exit_of_argparse:
            code = int(exit_of_argparse.code or 0)
    return code, err.getvalue()


@quickly
@given(command=commands())
def test_commands_end_with_an_exit_code_and_a_line(command: list[str], tmp_path: Path) -> None:
    with workplace(tmp_path):
        code, err = outcome(command)
    assert code in (0, 1, 2)
    said = [line for line in err.splitlines() if line.startswith("bench")]
    if code == 2:
        assert len(said) == 1, err

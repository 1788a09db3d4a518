"""README.md and docs/: every command there is one that exists, and some are run as they are written."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bench.cli import main, parser
from bench.commands.options import settings_of
from bench.config import build
from bench.experiments.names import experiment_names

ROOT = Path(__file__).resolve().parent.parent


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


COMMANDS: list[Any] = load(ROOT / "tests/campaign/documented.py").commands()
FILES = sorted({command.file for command in COMMANDS})


def of(program: str) -> list[Any]:
    return [command for command in COMMANDS if command.words[0] == program]


def where(command: Any) -> str:
    return f"{command.file}:{command.line}: {command.text}"


def test_commands_are_found() -> None:
    """Those of a block, of a text, and of a block's line that goes on."""
    found = {command.text for command in COMMANDS}
    assert "make table1" in found
    assert "bench run --method rag --limit 4" in found
    assert any("--base-url http://127.0.0.1:8001/v1 --base-url" in re.sub(" +", " ", text) for text in found)
    assert len(FILES) > 9
    assert len(of("bench")) > 90


def understood(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A command of bench has flags and values that exist, and its settings make a configuration."""
    arguments = argparse.Namespace()
    with suppress(SystemExit):
        parser().parse_args(command.words[1:], arguments)
    said = capsys.readouterr().err
    short = "the following arguments are required|expected .* argument|choice: 'COMMAND'|value: 'N'|arguments: [.]{3}$"
    if command.inline and re.search(short, said):
        return
    assert "error" not in said, f"{where(command)}: {said}"
    for name in getattr(arguments, "experiment", ()):
        assert name in experiment_names() or name.endswith(".yaml"), where(command)
    if not hasattr(arguments, "set") or "..." in command.text or "revise" in command.text:
        return
    configs = arguments.config if isinstance(arguments.config, list) else [arguments.config or "demo"]
    for config in configs:
        build({"method": "rag"}, settings_of(arguments, config))


@pytest.mark.parametrize("file", FILES)
def test_every_command_of_bench_is_understood(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in of("bench"):
        if command.file == file:
            understood(command, capsys)


def test_every_target_of_make_exists() -> None:
    targets = {word for one in of("make") for word in one.words[1:] if re.fullmatch("[a-z][a-z0-9-]*", word)}
    assert {"table1", "test", "check", "gpu-check"} <= targets
    make = ["make", "-n", "STACK=", *sorted(targets)]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["pytest", "python"])
def test_every_script_and_test_exists(program: str) -> None:
    assert of(program)
    for command in of(program):
        words = command.words[1:]
        if words[0] == "-m":
            # Of another package the name alone: to find a module imports what it is in.
            name = words[1] if words[1].startswith("bench.") else words[1].partition(".")[0]
            assert importlib.util.find_spec(name) is not None, where(command)
            continue
        paths = [word for word in words if word.startswith(("tests/", "findings/"))]
        assert paths, where(command)
        assert all((ROOT / path).exists() for path in paths), where(command)
        if "-k" in words:
            wanted = words[words.index("-k") + 1]
            files = [
                one
                for path in paths
                for one in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py"))
            ]
            text = "".join(one.read_text(encoding="utf-8") for one in files)
            for part in re.split(" (?:and|or|not) ", wanted):
                assert re.search(rf"def test_\w*{part}|\[.*{part}|\"{part}", text), where(command)


HERE = """
bench run --method rag --limit 4
bench show rag-recency-k3-demo-model-first4 --instance Books/test/ANYNXYVY4AB4SZ
bench list runs
bench list methods
bench report
bench doctor
bench data demo --task lamp-4 --out made
bench data stats made --task lamp-4
"""


def test_these_run_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In their order, the model included. `tests/campaign/documented.py` runs all that this machine can."""
    monkeypatch.chdir(tmp_path)
    written = {" ".join(command.words) for command in of("bench")}
    for line in HERE.strip().splitlines():
        assert line in written, f"{line} is in no page"
        assert main(shlex.split(line)[1:]) == 0, line
    printed = capsys.readouterr().out
    assert "My mother insisted on this book" in printed, "the README's instance"
    assert (tmp_path / "results" / "report.html").exists()


def block(heading: str, first: str) -> str:
    """The code block of README that begins with a line, without that."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"## {heading}")[2]
    return re.search(rf"```\w*\n{re.escape(first)}.*?\n(.*?)```", text, re.S)[1]  # type: ignore[index]


def test_the_method_of_the_readme_is_installed_and_used(tmp_path: Path) -> None:
    """`pip install .` of the package that stands there, then a run of it in a process of its own."""
    package = tmp_path / "project" / "revise"
    prompts = package / "prompts" / "revise"
    prompts.mkdir(parents=True)
    for path in (
        package / "__init__.py",
        prompts / "draft.txt",
        prompts / "write.txt",
        package.parent / "pyproject.toml",
    ):
        path.write_text(block("A method of your own", f"# {path.relative_to(package.parent)}"))
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command = [*pip, "--no-deps", "--no-build-isolation", "--target", str(site), "."]
    subprocess.run(command, cwd=package.parent, check=True, timeout=120)
    code = f"import site; site.addsitedir({str(site)!r}); from bench.cli import main; raise SystemExit(main())"
    run = [
        sys.executable,
        "-c",
        code,
        "run",
        "--method",
        "revise",
        "--set",
        "revise.shown=2",
        "--limit",
        "2",
        "--dry-run",
    ]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "revise_draft: 6 calls" in done.stdout
    assert "Revise the draft so that it reads like what this user wrote before." in done.stdout
    assert done.stdout.count("[Draft]: ") == 1


def test_the_citation_is_complete_and_of_this_version() -> None:
    import tomllib

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys(), "what the format asks for"
    assert cited["version"] == version
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+), (\S+)$", changes, re.M).groups() == (version, str(cited["date-released"]))  # type: ignore[union-attr]

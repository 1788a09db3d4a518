"""What a user gets who installs bench: one package with everything in it, which works outside a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("methods", "metrics", "retrievers")
"""Folders of the checkout that are links in the package."""


def files_of(folder: Path) -> Iterator[str]:
    """The files of a package that belong into a wheel, links followed, relative to the package's parent."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (str((Path(place) / name).relative_to(folder.parent)) for name in names)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what pip builds from, links as links: pip writes into the folder that it builds in."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("bench", *LINKED):
        unwanted = shutil.ignore_patterns("__pycache__", "checkpoint", "log.jsonl")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)
    (made,) = out.glob("*.whl")
    return made


class Environment:
    """A fresh virtual environment that sees the locked packages, but neither the checkout nor its installation."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", symlinks=True)
        self._bin = folder / "venv" / "bin"
        self._work = folder / "work"
        self._work.mkdir()
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        # A path in a .pth file is searched for packages, and its own .pth files are not read.
        (site / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, *what: str) -> None:
        """Have pip install something, and nothing else."""
        pip = [sys.executable, "-m", "pip", "--python", str(self._bin / "python"), "--disable-pip-version-check"]
        options = ["-q", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        done = self._run(*pip, "install", *options, *what)
        assert done.returncode == 0, done.stderr

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of bench, in a folder of its own."""
        return self._run(str(self._bin / "bench"), *arguments)

    def python(self, code: str) -> str:
        """What some code prints."""
        done = self._run(str(self._bin / "python"), "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # METEOR's resources are looked for in the environment of the process.
        variables.setdefault("NLTK_DATA", str(Path(sys.prefix) / "nltk_data"))
        return subprocess.run(
            command, cwd=self._work, env=variables, capture_output=True, text=True, check=False, timeout=300
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install(str(wheel))
    return environment


def test_the_wheel_is_one_package_with_every_file(source: Path, wheel: Path) -> None:
    """Code, templates, configurations, experiments, the paper's numbers, the demo's model."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"bench", "personalization_bench"}
    wanted = set(files_of(source / "bench"))
    assert {"bench/methods/prompts/rag/write.txt", "bench/paper/numbers.yaml", "bench/py.typed"} <= wanted
    assert {name for name in held if name.startswith("bench/")} == wanted


def test_the_checkout_is_not_seen(installed: Environment) -> None:
    code = "import bench.methods.rag, importlib.util as u; print(bench.methods.rag.__file__, u.find_spec('methods'))"
    where, top = installed.python(code).split()
    assert str(ROOT) not in where
    assert where.endswith("site-packages/bench/methods/rag.py")
    assert top == "None"


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("list methods", "nonperso"),
        ("list experiments", "table10"),
        # The paper's number of test users of books, under the demo's.
        ("data stats demo", "  paper                  317  "),
        ("table table5", "wrote results/tables/table5.md"),
        ("run --method copy --limit 4", "0 calls, 0 prompt and 0 generated tokens"),
        ("run --method rag --limit 2", "kept in results/runs/rag-"),
    ],
)
def test_a_command_outside_a_checkout(command: str, printed: str, installed: Environment) -> None:
    done = installed.bench(*command.split())
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def test_the_goldens_stay_in_the_checkout(installed: Environment) -> None:
    done = installed.bench("check")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "bench: there is no golden in results/golden; make one of a finished run with: bench bless RUN\n"
    )


def test_an_editable_installation_follows_the_links(source: Path, tmp_path: Path) -> None:
    """What `make setup` makes."""
    environment = Environment(tmp_path)
    environment.install("-e", str(source))
    assert environment.python("import bench.metrics.rouge as m; print(m.__file__)").strip() == str(
        source / "bench" / "metrics" / "rouge.py"
    )
    done = environment.bench("run", "--method", "copy", "--limit", "1", "--set", "metrics=[rouge]")
    assert done.returncode == 0, done.stderr
    assert "kept in results/runs/copy-" in done.stdout

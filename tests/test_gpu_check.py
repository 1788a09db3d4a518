"""`make gpu-check` at its tiny size, without a GPU: each part's figures, and a report whatever becomes of a part.

The parts run in this process, which has loaded torch and vLLM once; the command starts the few whose end is the matter.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.files import dump
from bench.gpu_check.__main__ import SCRATCH, main
from bench.gpu_check.engines import Greedy, compared
from bench.gpu_check.page import page
from bench.gpu_check.parts import outcome
from bench.gpu_check.plan import MODEL, PARTS, TEXT_MODEL, Plan
from bench.registry import names

TINY = Plan("", tiny=True, wanted=(MODEL, TEXT_MODEL))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A tiny check whose random models are made."""
    made = replace(TINY, work=str(tmp_path_factory.mktemp("gpu-check")))
    found = outcome("models", made)
    assert found["state"] == "passed", found["error"]
    assert found["figures"][MODEL]["parameters"] == found["figures"][TEXT_MODEL]["parameters"] > 800_000
    return made


def figures(part: str, plan: Plan) -> dict[str, Any]:
    """Those of a part that has to pass, as its process leaves them."""
    found = outcome(part, plan)
    assert found["state"] == "passed", found["error"]
    plan.outcome(part).write_text(dump(found))
    made: dict[str, Any] = json.loads(plan.outcome(part).read_text())["figures"]
    return made


def test_engine(plan: Plan) -> None:
    found = figures("engine", plan)
    assert found["start_seconds"] > 0
    assert found["key_value_cache_tokens"] > 1000
    for name in ("greedy", "sampled"):
        assert found[name]["texts"] == found[name]["answered"] == found[name]["different_texts"] == 6
        assert found[name]["prompt_tokens"] > 300
        assert found[name]["new_tokens"] == 16
        assert 0 < found[name]["new_tokens_per_second"] < found[name]["prompt_tokens_per_second"]


def test_texts(plan: Plan) -> None:
    found = figures("texts-float32", plan)
    soft, same = found["soft_prompts"], found["same_seeds"]
    assert soft["equal"] == soft["prompts"] == 6
    assert soft["parted"] == []
    assert soft["vectors"] >= 12
    assert soft["different_answers"] > 3
    assert same["texts"] == same["different_texts"] == 6
    assert same["equal"] == dict.fromkeys(("again", "alone", "reversed", "resumed"), 6)
    assert same["asked_again_after_the_kill"] == 3
    assert outcome("texts-invariant", plan)["state"] == "skipped"


def test_where_tokens_part() -> None:
    expected = [Greedy([5, 6, 7], [3.0, 2.0, 1.0]) for _ in range(4)]
    found = compared(expected, [[5, 6, 7], [5, 8, 7], [5, 6], [5, 6, 7, 9]])
    assert found["equal"] == 1
    assert found["parted"] == [{"token": 2, "lead": 2.0}, {"token": 3, "lead": 1.0}, {"token": 4, "lead": 1.0}]


def test_adapter(plan: Plan) -> None:
    found = figures("adapter", plan)
    assert found["steps"] == len(found["losses"]) == 8
    assert found["equal_after_resuming"] is True
    assert found["seconds_a_step"] > 0
    assert found["memory_bytes_at_the_end"] > 1e8


def test_bertscore(plan: Plan) -> None:
    alone = outcome("bertscore", replace(plan, work=str(plan.folder / "elsewhere")))
    assert alone["state"] == "failed"
    assert alone["error"] == "the values without a GPU, which these are compared with, are not there"
    plain, found = figures("bertscore-cpu", plan), figures("bertscore", plan)
    assert plain["values"] == found["values"] == alone["figures"]["values"]
    assert 0.2 < found["mean"] < 0.8
    plain["values"][1] += 0.002
    plan.outcome("bertscore-cpu").write_text(dump({"figures": plain}))
    apart = outcome("bertscore", plan)
    assert apart["state"] == "failed"
    assert "a pair is 0.002 off" in apart["error"]


def test_time(plan: Plan) -> None:
    found = figures("time", plan)
    assert set(found["methods"]) >= {"rag", "dep", "dpl", "copy"}
    assert sorted(found["methods"]) == sorted(names("methods"))
    shown = page(
        {
            "created": "today",
            "tiny": True,
            "models": {MODEL: "random", TEXT_MODEL: "random"},
            "parts": [
                {"name": "time", "what": "time", "state": "passed", "seconds": 1.0, "error": None, "figures": found}
            ],
        }
    )
    assert "| rag |" in shown
    assert "Training of the adapters" in shown


def test_a_part_that_fails_is_a_line_of_the_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken, folder = tmp_path / "broken", tmp_path / "out"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    command = ["--tiny", "--folder", str(folder), "--model", str(broken), "--only", "engine", "--only", "time"]
    assert main([*command, "--seconds", "time=0.2"]) == 1
    report = json.loads((folder / "gpu-check.json").read_text())
    parts = {part["name"]: part for part in report["parts"]}
    assert list(parts) == ["machine", "engine", "time"]
    assert parts["machine"]["state"] == "passed"
    assert "torch" in parts["machine"]["figures"]["versions"]
    assert parts["engine"]["state"] == parts["time"]["state"] == "failed"
    assert parts["engine"]["error"].startswith("ResourceError: the config.json of model ")
    assert parts["time"]["error"] == "took longer than its 0.2 s"
    shown = (folder / "gpu-check.md").read_text()
    assert "1 passed, 2 failed, 0 skipped" in shown
    assert "took longer than its 0.2 s" in shown
    assert not (folder / SCRATCH).exists()
    said = capfd.readouterr()
    assert "gpu-check: failed: engine, time" in said.err
    assert f"wrote {folder / 'gpu-check.json'}" in said.out


def test_no_time_left_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--folder", str(tmp_path), "--only", "machine", "--minutes", "0.01"]) == 1
    assert "machine failed in 0.0 s: not begun: the 1 s for all parts are over (--minutes)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no NVIDIA GPU here; --tiny runs the same parts on tiny models without one"),
        (["--tiny", "--only", "enginge"], "there is no part 'enginge'; the parts are machine, models, engine, "),
        (["--tiny", "--seconds", "time"], "--seconds time: write it as PART=SECONDS, e.g. time=300"),
        (["--tiny", "--minutes", "nan"], "--minutes nan: write a number of minutes above 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*arguments, "--folder", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gpu-check: {said}")
    assert error.count("\n") == 1


def test_a_stack_for_the_cpu_beside_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("bench.doctor.version", lambda package: None)
    assert main(["--folder", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "gpu-check: the installed stack is for the CPU; run: make setup STACK=gpu\n"


def test_plans_survive_their_line() -> None:
    given = replace(TINY, model="org/name", wanted=(TEXT_MODEL,))
    assert Plan.load(given.dump()) == given
    assert len({part.name for part in PARTS}) == len(PARTS)

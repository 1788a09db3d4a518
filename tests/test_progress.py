"""Progress: few plain lines where there is no terminal, one renewing line where there is; speeds by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

import pytest

from bench.progress import Progress, Share, duration, say


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.progress.time.perf_counter", clock)
    return clock


def test_plain_lines_are_few_and_say_speed_and_remaining_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("pag", 40)
    for _ in range(20):
        clock.now += 2.0
        bar.update(finished=1, tokens=100, note="7 calls in flight")
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    # 40 s of work: a line at 16 s and one at 32 s, when 8 and 16 of 40 are done at 2 s each and 50 tokens/s.
    assert lines == [
        "pag: 8/40 instances, 7 calls in flight, 50 tokens/s, about 1 min 04 s left",
        "pag: 16/40 instances, 7 calls in flight, 50 tokens/s, about 48 s left",
    ]


def test_stored_answers_and_the_engines_start_do_not_count_as_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress("pag", 40)
    for _ in range(20):
        bar.update(finished=1)
    clock.now += 10.0
    bar.start()
    clock.now += 20.0
    bar.update(finished=10, tokens=60)
    assert capsys.readouterr().err == "pag: 30/40 instances, 3 tokens/s, about 20 s left\n"


def test_before_anything_is_finished_calls_that_were_foretold_tell(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress("dpl", 40, each=5)
    clock.now += 20.0
    bar.update(calls=50)
    clock.now += 20.0
    bar.update(finished=10, calls=50, spent=100)
    # A quarter of 200 calls in 20 s; then instances that took 10 each: a quarter of 400 in 40 s.
    assert capsys.readouterr().err.splitlines() == [
        "dpl: 0/40 instances, about 1 min 00 s left",
        "dpl: 10/40 instances, about 2 min 00 s left",
    ]


def test_before_anything_is_finished_the_remaining_time_is_unknown(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress("dpl", 40)
    clock.now += 16.0
    bar.update(tokens=32, note="3 calls in flight")
    assert capsys.readouterr().err == "dpl: 0/40 instances, 3 calls in flight, 2 tokens/s, ? left\n"


def test_answers_to_unfinished_instances_count_as_work(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("dpl", 10)
    bar.update(finished=1, calls=5, spent=5)
    bar.start()
    for _ in range(16):
        clock.now += 1.0
        bar.update(calls=1)
    # Nine more instances take 45 calls, of which 15 (16) took a second each: instances alone would know nothing.
    assert capsys.readouterr().err == "dpl: 1/10 instances, about 30 s left\n"


def test_the_very_first_answers_say_nothing_about_the_rest(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("rag", 100)
    clock.now += 16.0
    bar.update(finished=4)
    assert capsys.readouterr().err == "rag: 4/100 instances, ? left\n"
    clock.now += 16.0
    bar.update(finished=1)
    assert capsys.readouterr().err == "rag: 5/100 instances, about 10 min 08 s left\n"


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("copy", 2)
    bar.update(finished=1)
    clock.now += 1.0
    bar.update(finished=1)
    bar.close()
    assert capsys.readouterr().err == ""


def test_say_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    say("two")
    assert capsys.readouterr().err == "one\ntwo\n"


ON_A_TERMINAL = """
import time
from bench.progress import Progress, say
bar = Progress("rag", 3)
for _ in range(3):
    time.sleep(0.21)
    bar.update(finished=1)
say("a line that stays")
bar.close()
"""


def _read(descriptor: int) -> str:
    chunks = []
    # A terminal whose other end is closed reads as an input/output error.
    with suppress(OSError):
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    return b"".join(chunks).decode()


def test_on_a_terminal_one_line_renews_itself() -> None:
    master, slave = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", ON_A_TERMINAL], stderr=slave)
    os.close(slave)
    written = _read(master)
    os.close(master)
    assert process.wait() == 0
    *renewed, rest = written.split("\r\x1b[K")[1:]
    assert [text.split(" instances")[0] for text in renewed[:3]] == ["rag: 1/3", "rag: 2/3", "rag: 3/3"]
    assert not any("\n" in text for text in renewed[:3])
    assert renewed[3] == "a line that stays\r\n"
    assert rest == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7625, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_share_of_the_work(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A line every 15 s, an estimate when enough is done, and none for a share that is not known."""
    bar = Share("reading r.jsonl")
    for share in (0.01, 0.04, 0.4, -1.0, 0.8):
        clock.now += 16.0
        bar.update(share)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "reading r.jsonl: 1%, ? left",
        "reading r.jsonl: 4%, ? left",
        "reading r.jsonl: 40%, about 1 min 12 s left",
        "reading r.jsonl: 80%, about 20 s left",
    ]

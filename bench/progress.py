"""Progress of long work on standard error: one line that renews itself on a terminal, else a plain line at times."""

from __future__ import annotations

import sys
import time

from bench.terminal import visible

TERMINAL_EVERY = 0.2
PLAIN_EVERY = 15.0
MEANINGFUL = 0.05
"""Share of the work from which on it says how long the rest may take: the first answers of many take longest."""
_RENEW = "\r\x1b[K"


def say(text: str) -> None:
    """A line that stays; on a terminal it takes the place of the renewing one."""
    text = visible(text)
    print(f"{_RENEW}{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


class _Line:
    """A line that renews itself on a terminal; elsewhere a plain one now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.perf_counter() + (0.0 if self._terminal else PLAIN_EVERY)

    def _due(self, now: float) -> bool:
        """Whether it is time for a new line; then the next one is due later."""
        if now < self._next:
            return False
        self._next = now + (TERMINAL_EVERY if self._terminal else PLAIN_EVERY)
        return True

    def _show(self, line: str) -> None:
        line = visible(line)
        if self._terminal:
            print(f"{_RENEW}{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the renewing line."""
        if self._terminal:
            print(_RENEW, end="", file=sys.stderr, flush=True)


class Progress(_Line):
    """Counts finished instances of `total` and says how far the work is, how fast, and how long it may still take;
    `each`: calls that an instance may take, as long as none has ended."""

    def __init__(self, label: str, total: int, each: int = 0) -> None:
        self._label = label
        self._total = total
        self._each = each
        self._done = self._tokens = self._calls = self._spent = 0
        super().__init__()
        self.start()

    def start(self) -> None:
        """Start the clock of speed and remaining time: what came before, stored answers and the engine's start, says
        nothing about what is to come."""
        self._first = (self._done, self._calls)
        self._start = time.perf_counter()

    def update(self, finished: int = 0, tokens: int = 0, calls: int = 0, spent: int = 0, note: str = "") -> None:
        """`finished` more instances, which took `spent` calls together; `calls` more answered calls, also those of
        unfinished instances, with `tokens` generated tokens; `note` says what else is worth knowing."""
        self._done += finished
        self._tokens += tokens
        self._calls += calls
        self._spent += spent
        now = time.perf_counter()
        if self._due(now):
            self._show(self._line(now, note))

    def _line(self, now: float, note: str) -> str:
        spent = max(now - self._start, 1e-9)
        parts = [f"{self._label}: {self._done}/{self._total} instances"]
        parts += [note] if note else []
        parts += [f"{self._tokens / spent:,.0f} tokens/s"] if self._tokens else []
        worked, left = self._work()
        known = worked >= MEANINGFUL * (worked + left)
        parts.append(f"{'about ' + duration(spent / worked * left) if worked and known else '?'} left")
        return ", ".join(parts)

    def _work(self) -> tuple[float, float]:
        """What was done since the start and what is left to do: in calls, where instances take any, of which those
        that are left are taken to need as many as the finished ones, or as was foretold."""
        done, calls = self._first
        each = self._spent / self._done if self._done else self._each
        if each:
            return self._calls - calls, max(self._total * each - self._calls, 0)
        return self._done - done, self._total - self._done


class Share(_Line):
    """Says what share of some work is done, and how long the rest may take."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self._start = time.perf_counter()

    def update(self, share: float) -> None:
        """`share` of the work, from 0 to 1, is done; a negative one is not known."""
        now = time.perf_counter()
        if 0 <= share <= 1 and self._due(now):
            known = share >= MEANINGFUL
            left = f"about {duration((now - self._start) * (1 / share - 1))}" if known else "?"
            self._show(f"{self._label}: {share:.0%}, {left} left")


def duration(seconds: float) -> str:
    """Seconds as "42 s", "3 min 05 s" or "2 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

"""Shards of a run, for batch schedulers: `bench run --shard 3/8` makes the third of eight shares of the instances.

A shard is a run's folder in small, `shards/3-of-8/` below the run's own, with its own lock: any number of them work on
one run at the same time and wait for nobody. While one works it holds the run's lock together with all others. Which
instances it has follows from their ids alone, and it is done when its predictions.jsonl is there. How many shards
there are changes no text, and is no part of the run's identity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ConfigError
from bench.files import is_held

FOLDER = "shards"
MOST = 10_000
"""Shards of one run: each has a folder."""
NAMED = 8
"""How many shards a sentence names."""


@dataclass(frozen=True, order=True)
class Shard:
    """Number `number` of `of` shares of the instances, counted from 1."""

    of: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that a user names, "3/8". Raises `ConfigError`."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        shard = cls(int(found[2]), int(found[1])) if found else None
        if shard is None or not 1 <= shard.number <= shard.of <= MOST:
            raise ConfigError(
                f"--shard must be NUMBER/COUNT, counted from 1 (1/8 to 8/8; {MOST:,} shards at most), got "
                f"'{text[:40]}'; in a Slurm array: --array=1-8 and --shard $SLURM_ARRAY_TASK_ID/8"
            )
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, instance: str) -> bool:
        """Whether the instance of an id is one of this shard's."""
        return number_of(instance, self.of) == self.number

    def folder(self, run: Path) -> Path:
        """Where the shard of a run is kept; `run` is the run's folder."""
        return run / FOLDER / f"{self.number}-of-{self.of}"


def number_of(instance: str, of: int) -> int:
    """The number of the shard, of so many, that has the instance of an id."""
    digest = hashlib.sha256(instance.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % of + 1


def shards_in(run: Path) -> list[Shard]:
    """The shards of which a run's folder holds something, in order."""
    names = (re.fullmatch(r"([1-9][0-9]*)-of-([1-9][0-9]*)", path.name) for path in (run / FOLDER).glob("*-of-*"))
    return sorted(Shard(int(name[2]), int(name[1])) for name in names if name)


def at_work(run: Path) -> list[Shard]:
    """The shards of a run on which a process works now."""
    return [shard for shard in shards_in(run) if is_held(shard.folder(run))]


def without_text(run: Path, instances: Iterable[str]) -> list[str]:
    """Those of a run's instances that no shard is done with."""
    done: dict[int, set[int]] = {}
    for shard in shards_in(run):
        if (shard.folder(run) / "predictions.jsonl").is_file():
            done.setdefault(shard.of, set()).add(shard.number)
    return [one for one in instances if not any(number_of(one, of) in numbers for of, numbers in done.items())]


def shards_of(instances: Iterable[str], of: int) -> list[Shard]:
    """The shards, of so many, that have some of these instances, in order."""
    return sorted({Shard(of, number_of(instance, of)) for instance in instances})


def named(shards: Sequence[Shard]) -> str:
    """Shards in a sentence: "1/8, 2/8"."""
    more = f" and {len(shards) - NAMED} more" if len(shards) > NAMED else ""
    return ", ".join(map(str, shards[:NAMED])) + more

"""Every command of README.md and docs/ as it is written there. By hand, those of code blocks that need nothing that
this machine lacks are run in their order:

    python tests/campaign/documented.py FOLDER [--only PART] [--without PART ...] [--list]

FOLDER becomes a working copy of what git has here, with results of its own. A command is left out, and that is said,
if it asks for a GPU, a hub, a server or a cluster, or holds a word in capitals that stands for something of the
reader's. tests/test_docs.py reads all of them, and runs some.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("bench", "make", "python", "pytest")
ELSEWHERE = re.compile(
    r"paper-7b|paper-32b|official-7b|Qwen|openai|ray|data fetch|data/|gpu-check|accelerate|vllm\.|results/adapters|"
    r"server_faults|reviews\.jsonl|my_reviews|my_table|beers|revise|OLD|campaign|git clone|bless|setup"
)
"""What this machine need not have, what is the reader's, and what another check runs."""
PLACEHOLDER = re.compile(r"\b(?:[A-Z]{3,}|[a-z]+-RUN)\b(?!=)|\.\.\.")


@dataclass(frozen=True)
class Command:
    """A command, and where it is written."""

    file: str
    line: int
    text: str
    inline: bool
    """Whether it stands within a text, where it may be the name of a command alone."""

    @property
    def words(self) -> list[str]:
        """As a shell would split it, variables in front left out."""
        words = shlex.split(self.text, comments=True)
        while "=" in words[0]:
            words.pop(0)
        return words

    @property
    def runs_here(self) -> bool:
        """Whether it needs nothing of the reader's and nothing that this machine may lack."""
        bare = self.text.partition("#")[0]
        return not ELSEWHERE.search(bare) and not PLACEHOLDER.search(bare)


def commands() -> list[Command]:
    """All of them: lines of code blocks, and what stands in code marks within a text."""
    return [one for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) for one in _of(path)]


def _of(path: Path) -> Iterator[Command]:
    name = str(path.relative_to(ROOT))
    lines = path.read_text(encoding="utf-8").splitlines()
    language: str | None = None
    begun, number = "", 0
    for place, line in enumerate(lines, 1):
        if line.startswith("```"):
            language = line[3:].strip() if language is None else None
        elif language in ("", "sh", "bash"):
            begun, number = (f"{begun} {line.strip()}", number) if begun else (line, place)
            if begun.endswith("\\"):
                begun = begun[:-1]
                continue
            if _is_command(begun):
                yield Command(name, number, begun.strip(), inline=False)
            begun = ""
        elif language is None:
            found = re.findall(r"`([^`]+)`", line)
            yield from (Command(name, place, text, inline=True) for text in found if _is_command(text))


def _is_command(text: str) -> bool:
    bare = re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", text.strip())
    first, _, rest = bare.partition(" ")
    return first in PROGRAMS and re.match(r"[\w-]", rest) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="commands that hold this")
    parser.add_argument("--without", nargs="+", default=[], help="but not those that hold one of these")
    parser.add_argument("--list", action="store_true", help="say which would be run, and run none")
    options = parser.parse_args()
    chosen: dict[str, Command] = {}
    for command in commands():
        wanted = options.only in command.text and not any(part in command.text for part in options.without)
        if wanted and not command.inline:
            chosen.setdefault(" ".join(command.words), command)
    here = {text: one for text, one in chosen.items() if one.runs_here}
    print(f"{len(here)} of {len(chosen)} commands are run; left out:")
    print("\n".join(f"  {one.file}:{one.line}: {text}" for text, one in chosen.items() if text not in here))
    if options.list:
        print("\n".join(f"{one.file}:{one.line}: {text}" for text, one in here.items()))
        return
    if not options.folder.exists():
        subprocess.run(["git", "clone", "-q", str(ROOT), str(options.folder)], check=True)
        (options.folder / ".venv").symlink_to(ROOT / ".venv")
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(options.folder),
    }
    failed = 0
    for text, command in here.items():
        started = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", command.text],
            cwd=options.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        failed += bool(done.returncode)
        print(
            f"{done.returncode} {time.perf_counter() - started:6.1f} s  {command.file}:{command.line}: {text}",
            flush=True,
        )
        if done.returncode:
            print("\n".join(f"    {line}" for line in (done.stderr or done.stdout).strip().splitlines()[-3:]))
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()

"""`kill -9` of two real vLLM servers and of the driver at random moments, and the eight methods through both.

    python tests/campaign/fleet_kills.py --kills 20
    python tests/campaign/fleet_kills.py --kills 0 --methods nonperso rag pag dpl pplug dep prompt_tuning copy

A run of PAG on two servers of the demo's model is killed, each time a server or the driver as a coin decides, and the
driver started again until so many kills are done and the run is complete. A server is killed with its engine while the
driver has both, and started again some seconds later. What the run keeps is compared with one that nobody killed. With
`--methods`, texts of the demo by both servers, greedy and sampled, are compared with those of an engine in process;
adapters are fresh.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.backends.conftest import VLLMServer  # noqa: E402
from tests.campaign.ray_kills import METRICS, arguments, equal, kill  # noqa: E402

LONGEST_PAUSE = 10.0
"""Seconds until a server that was killed is started again, at most."""


class Fleet:
    """Two real servers."""

    step = 60

    def __init__(self, folder: Path) -> None:
        self._servers = [VLLMServer(folder / f"{number}.log") for number in range(2)]
        self._pool = ThreadPoolExecutor(2)
        self._again: Future[None] | None = None
        self.lost = self.back = 0
        self.section = {"base_url": [server.url for server in self._servers], "served_model": "tiny", "retries": 1}
        # Long enough for a server to be started again meanwhile.
        given = {"method": "pag", "limit": 100, "backend": "openai", **METRICS}
        self.settings = self.alone = {**given, "openai": {**self.section, "concurrency": 2}}

    def start(self) -> None:
        """Both at once."""
        for started in [self._pool.submit(server.start) for server in self._servers]:
            started.result()

    def kill_one(self, dice: random.Random, said: str) -> bool:
        if self._again is not None:
            if not self._again.done():
                return False
            self._again.result()
        # The driver does not have both yet.
        if _lost(said) > _back(said):
            return False
        server, pause = dice.choice(self._servers), dice.uniform(0, LONGEST_PAUSE)
        server.kill()
        self._again = self._pool.submit(_start_after, pause, server)
        return True

    def ended(self, said: str) -> str:
        self.lost += _lost(said)
        self.back += _back(said)
        return ""

    def close(self) -> None:
        """Nothing runs afterwards."""
        self._pool.shutdown(cancel_futures=True)
        for server in self._servers:
            server.kill()


def _start_after(seconds: float, server: VLLMServer) -> None:
    time.sleep(seconds)
    server.start()


def _lost(said: str) -> int:
    """How often a driver left a server alone."""
    return said.count("it is left alone, and tried again in")


def _back(said: str) -> int:
    """How often one was back."""
    return said.count(" is back\n")


def main() -> int:
    """The exit code: 1 if anything was found."""
    asked = arguments(__doc__)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        fleet = Fleet(Path(name))
        try:
            fleet.start()
            if asked.methods:
                problems += equal(asked.methods, Path(name), {"backend": "openai", "openai": fleet.section})
            if asked.kills:
                problems += kill(Path(name), asked.kills, random.Random(asked.seed), fleet)
                print(f"drivers lost a server {fleet.lost} times, and had one back {fleet.back} times")
                if fleet.lost and not fleet.back:
                    problems.append("no server came back to a run")
        finally:
            fleet.close()
    print("\n".join(problems) or "no row lost, doubled or different")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())

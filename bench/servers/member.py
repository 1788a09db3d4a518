"""A server as a member of a fleet, and a call that it has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from bench.records import Call
from bench.servers.server import FailedError, Server


@dataclass(eq=False)
class Asked:
    """A call on its way: the how-manieth it is, how many tokens its prompt has (where that is known), since when."""

    number: int
    call: Call
    tokens: int | None
    started: float
    refused: dict[Member, FailedError] = field(default_factory=dict)
    """By the servers that refused it for what is in it, or had no text for it: why."""
    falls: int = 0
    """How many servers failed with it."""


@dataclass(eq=False)
class Member:
    """A server of the fleet: the calls that it has, how many it refused in a row, and why it is left alone."""

    server: Server
    open: dict[asyncio.Task[None], Asked] = field(default_factory=dict)
    in_a_row: int = 0
    failed: FailedError | None = None
    looked_at: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is looked at between two tries of a call."""

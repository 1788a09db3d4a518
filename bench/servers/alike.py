"""Whether servers are alike, as far as they tell: texts of a run must not depend on which of them made them.

What no server tells is in docs/cluster.md: the weights behind a name, and sampling defaults other than those that each
request sets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bench.records import Call, Prompt
from bench.servers.answers import UnusableError
from bench.servers.server import Server

PROBE = Call(
    # White space at the ends and a blank line: templates differ in what they leave of it.
    ("probe", "probe", 0),
    Prompt("probe", "Answer in a word. ", " Which of the two?\n\nThis one, or that?\n"),
    seed=0,
    temperature=0.0,
    top_p=1.0,
    max_new_tokens=1,
)
SHOWN = 60
"""Characters that a message shows of a value."""


@dataclass(frozen=True)
class Sighting:
    """What a server told of itself; None is what it did not tell. The fields' names with spaces are their names in
    messages."""

    max_model_len: int | None = None
    system_fingerprint: str | None = None
    tokens_of_a_templated_prompt: tuple[int, ...] | int | None = None
    """The ids, or how many there are."""


async def look(server: Server) -> Sighting:
    """Ask a server about itself, and for one token. Raises `UnusableError` for a server that does not serve the model,
    and what a failed request raises."""
    length = _served(await server.models(), server.model)
    answer = _json(await server.converse(PROBE))
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    ids = await server.tokens(PROBE.prompt)
    fingerprint = answer.get("system_fingerprint")
    return Sighting(
        max_model_len=length,
        system_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        tokens_of_a_templated_prompt=count if ids is None else tuple(ids),
    )


def _served(answer: Any, model: str) -> int | None:
    """The length of the model's context in a list of models, if it is told. Raises `UnusableError` for a list without
    the model."""
    cards = answer.get("data") if isinstance(answer, dict) else None
    known = {str(card.get("id")): card for card in cards if isinstance(card, dict)} if isinstance(cards, list) else {}
    if not known:
        return None
    if model not in known:
        names = ", ".join(f"'{name}'" for name in list(known)[:5])
        mend = ". Set openai.served_model to the name that all servers serve it by"
        raise UnusableError(f"does not serve model '{model}', but {names}", passing=False, mend=mend)
    length = known[model].get("max_model_len")
    return length if isinstance(length, int) else None


def _json(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise UnusableError("did not answer a first question in JSON")
    return answer


def unlike(sightings: Mapping[str, Sighting]) -> str:
    """In what servers, by their addresses, differ, as a sentence; "" for servers that are alike. What one of them does
    not tell is no difference."""
    for field in fields(Sighting):
        told = {where: value for where, one in sightings.items() if (value := getattr(one, field.name)) is not None}
        kinds = {type(value) for value in told.values()}
        if len(kinds) > 1:
            # Of some the ids are known, of others only how many.
            told = {where: len(value) if isinstance(value, tuple) else value for where, value in told.items()}
        if len(set(told.values())) > 1:
            listed = "; ".join(f"{where}: {_shown(value)}" for where, value in told.items())
            return f"they differ in {field.name.replace('_', ' ')} ({listed})"
    return ""


def _shown(value: object) -> str:
    text = f"{len(value)} tokens, {', '.join(map(str, value))}" if isinstance(value, tuple) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

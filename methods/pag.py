"""PAG: the model first summarises the user's reviews into a profile (Richardson et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class PAG:
    """One call summarises the K retrieved reviews, a second writes from the summary and the same K blocks
    (DEP paper, appendix B). Where the first prompt has nothing to ask about, as for a user without a history, it is
    not asked."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)

    def steps(self, instance: Instance, context: Context) -> Steps:
        history = context.retrieve(instance)
        profile = context.prompt("profile", instance, history=history)
        (summary,) = (yield [profile]) if profile.user else [""]
        (text,) = yield [context.prompt("write", instance, history=history, texts={"summary": summary})]
        return text

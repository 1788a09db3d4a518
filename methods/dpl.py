"""DPL: the model first says how the user's reviews differ from other users' of the same items (Qiu et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.methods._comparing import Comparing, Ties, comparison, item_part
from bench.protocols import Properties, Steps
from bench.records import Instance


@dataclass(frozen=True)
class DPL(Comparing):
    """K calls, side by side, each compare one review with representative peers; a further call summarises the answers
    and K history blocks into a profile, and the last one writes from the profile and the same blocks (DEP paper,
    appendix B).

    A review can be compared if at least `min_peers` others reviewed its item; the retriever chooses K of these, apart
    from the K blocks. The own review and its peers' are put into `clusters` clusters by the vectors of `encoder`. With
    nothing to compare the list of differences is empty; a list that takes more than half of the budget is cut at its
    end, the retriever's last choices. Where the profile's prompt has nothing to ask about, as for a user without a
    history, it is not asked.

    Two options are switches between the paper and the released code (docs/fidelity.md): with `item_descriptions` the
    profile's prompt repeats each item's description beside its difference, and with `ties=float32` the nearest of a
    cluster's members is that which single precision gives, not the first of equals.
    """

    item_descriptions: bool = False
    ties: Ties = "first"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=True)
    official: ClassVar[Mapping[str, object]] = {"item_descriptions": True, "ties": "float32"}
    official_settings: ClassVar[Mapping[str, object]] = {"peers.all_targets": True, "input_budget": "model"}

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates that these options render."""
        return ("difference", "peer", self._item, "profile", "write", "block")

    @property
    def _item(self) -> str:
        return "described_item" if self.item_descriptions else "item"

    def steps(self, instance: Instance, context: Context) -> Steps:
        compared = self.comparisons(instance, context, self.ties)
        answers: list[str] = []
        if compared:
            answers = yield [comparison("difference", record, peers, instance, context) for record, peers in compared]
        differences = [
            item_part(self._item, record, answer, context)
            for (record, _), answer in zip(compared, answers, strict=True)
        ]
        history = context.retrieve(instance)
        profile = context.prompt("profile", instance, history=history, texts={"differences": "\n".join(differences)})
        (summary,) = (yield [profile]) if profile.user else [""]
        (text,) = yield [context.prompt("write", instance, history=history, texts={"summary": summary})]
        return text

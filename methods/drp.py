"""DRP: as DPL, but the model finds by itself in what the user's reviews differ, and checks what it found
(arXiv:2511.15389)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.context import Context
from bench.methods._comparing import Comparing, comparison, item_part
from bench.protocols import Properties, Steps
from bench.records import Instance, Prompt


@dataclass(frozen=True)
class DRP(Comparing):
    """K calls, side by side, each list the features in which one review differs from representative peers': three
    dimensions are offered (writing, emotion, meaning), and the model names what else it finds. K further calls check
    these lists against the reviews and leave out what does not hold. One call summarises what remains and K history
    blocks into a profile, and the last one writes from the profile and the same blocks: 2K + 2.

    A review can be compared if at least `min_peers` others reviewed its item; the retriever chooses K of these, apart
    from the K blocks. The own review and its peers' are put into `clusters` clusters by the vectors of `encoder`. All
    of that is DPL's, whose successor this is.

    With `differences=raw`, which is what the released code's last step reads, the lists are taken unchecked, and the K
    calls that would check them are not made. `model` is a second model, by its name on the server, for the lists and
    their checking, e.g. one that reasons; only a backend of servers has it.

    A list without text, or with the word None alone, is no difference: it is not checked, and left out of the profile's
    prompt. An answer is without text if it is empty or a thought that does not end. Without any difference (a user
    without peers) that part of the profile's prompt is empty; where it has nothing to ask about at all, as for a user
    without a history, it is not asked. Both are as in DPL.
    A list of differences that takes more than half of the budget is cut at its end, the retriever's last choices.

    From the paper: the stages, the seed dimensions, features with definition and difference, K = 8 with 4 peers. Ours,
    not verified against it: all wording, that the profile's prompt shows the history beside the differences, and the
    limits on length. Answers take at most `max_new_tokens`, where the paper gives thoughts 4,096.
    """

    differences: Literal["validated", "raw"] = "validated"
    model: Annotated[str | None, Field(min_length=1)] = None

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=True)
    official: ClassVar[Mapping[str, object]] = {"differences": "raw"}

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates that these options render."""
        checking = ("validate",) if self.differences == "validated" else ()
        return ("difference", *checking, "peer", "item", "profile", "write", "block")

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are asked beside the run's."""
        return () if self.model is None else (self.model,)

    def steps(self, instance: Instance, context: Context) -> Steps:
        compared = self.comparisons(instance, context)
        found: list[str] = []
        if compared:
            found = yield [
                self._of_second(comparison("difference", record, peers, instance, context))
                for record, peers in compared
            ]
        told = [(*one, answer) for one, answer in zip(compared, found, strict=True) if _tells(answer)]
        if told and self.differences == "validated":
            # Two texts beside the peers: each may take half of what one alone may.
            room = context.input_budget // 4
            checked = yield [
                self._of_second(
                    comparison(
                        "validate",
                        record,
                        peers,
                        instance,
                        context,
                        own_text=context.chat.cut(record.text, room),
                        differences=context.chat.cut(answer, room),
                    )
                )
                for record, peers, answer in told
            ]
            told = [
                (record, peers, answer)
                for (record, peers, _), answer in zip(told, checked, strict=True)
                if _tells(answer)
            ]
        differences = [item_part("item", record, answer, context) for record, _, answer in told]
        history = context.retrieve(instance)
        profile = context.prompt("profile", instance, history=history, texts={"differences": "\n".join(differences)})
        (summary,) = (yield [profile]) if profile.user else [""]
        (text,) = yield [context.prompt("write", instance, history=history, texts={"summary": summary})]
        return text

    def _of_second(self, prompt: Prompt) -> Prompt:
        """The prompt for the second model, if there is one."""
        return dataclasses.replace(prompt, model=self.model)


def _tells(answer: str) -> bool:
    """Whether an answer lists anything."""
    return answer.strip(" .*\"'").lower() not in ("", "none")

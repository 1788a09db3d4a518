"""What a method and a retriever see of the run around them, for one category."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bench.chat import PLACEHOLDER, Chat, Trial, without_placeholders
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import ConfigError, PluginError
from bench.prompting import fitting, longest_prefix
from bench.protocols import Retriever, Task
from bench.records import Absent, Fields, Instance, Prompt, Record
from bench.templates import Templates


def derive_seed(*names: object) -> int:
    """A 32-bit seed from names alone: it depends on no order, batch size or worker count."""
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True)
class Context:
    """One category's data and the run's settings, as methods and retrievers use them. `marks` are the tokens that a
    trained method adds to the tokenizer."""

    task: Task
    corpus: Corpus
    method: str
    templates: Templates
    chat: Chat
    retriever: Retriever | None
    k: int
    input_budget: int
    run_seed: int
    embedder: Callable[[Sequence[str], str], NDArray[np.float32]]
    overlong_budget: Callable[[], int] | None = None
    """What a prompt may take that has no room for even one history block; None: the input budget."""
    marks: tuple[str, ...] = ()
    pool: Peers | None = None
    before_target: bool = False
    _user_vectors: dict[tuple[str, str, bool], NDArray[np.float32]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def seed(self, *names: object) -> int:
        """A seed for what `names` name, derived from the run's seed."""
        return derive_seed(self.run_seed, *names)

    def embed(self, texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        """Vectors of `texts`, shape (n, d), kept on disk between runs."""
        return self.embedder(texts, encoder)

    def answer(self, record: Record) -> str:
        """What the user answered in a record, as the task has it (`bench.protocols.Task`)."""
        own = getattr(self.task, "answer", None)
        return record.text if own is None else str(own(record))

    def retrieve(self, instance: Instance, candidates: Sequence[Record] | None = None) -> list[Record]:
        """The k records the retriever ranks highest, best first; from the whole profile unless `candidates` are
        given. Raises `PluginError` for a method that does not declare `retrieval_augmented`."""
        if self.retriever is None:
            raise PluginError("a method that calls context.retrieve must declare retrieval_augmented=True")
        pool = instance.profile if candidates is None else candidates
        ranking = self.retriever.rank(instance, pool, self)
        if sorted(ranking) != list(range(len(pool))):
            raise PluginError(
                f"retriever {type(self.retriever).__name__} must rank each of the {len(pool)} candidates once"
            )
        return [pool[index] for index in ranking[: self.k]]

    def ranked(self, instance: Instance) -> list[Record]:
        """The whole profile in the retriever's order, best first. Raises `PluginError` as `retrieve` does."""
        return replace(self, k=len(instance.profile)).retrieve(instance)

    def peers(self, record: Record, instance: Instance) -> list[Record]:
        """What other users wrote in the group of `record`, in the order of their ids: never a text that anyone has
        to predict, nor one of the instance's user. Raises `PluginError` for a method that does not declare
        `inter_user`."""
        if self.pool is None:
            raise PluginError("a method that calls context.peers must declare inter_user=True")
        found = self.pool.of_group(record.group, but=(record.user_id, instance.user_id))
        return [peer for peer in found if not self.before_target or _earlier(peer, instance)]

    def user_vector(
        self, user_id: str, encoder: str, otherwise: Sequence[Record] = (), with_target: bool = False
    ) -> NDArray[np.float32]:
        """The mean of the vectors of a user's records in the pool of peers, shape (d,), `with_target` also of the one
        that an adapter is trained to write; of `otherwise` for a user who has none there."""
        if self.pool is None:
            raise PluginError("a method that calls context.user_vector must declare inter_user=True")
        key = (user_id, encoder, with_target)
        if key not in self._user_vectors:
            texts = [record.text for record in self.pool.of_user(user_id, with_target) or otherwise]
            self._user_vectors[key] = self.embed(texts, encoder).mean(axis=0)
        return self._user_vectors[key]

    def prompt(
        self,
        name: str,
        instance: Instance,
        history: Sequence[Record] = (),
        *,
        blocks: Callable[[int], Sequence[str]] = lambda _: ("block",),
        given: Fields | None = None,
        texts: Mapping[str, str] | None = None,
        soft: bool = False,
        stage: str | None = None,
    ) -> Prompt:
        """Render template `name` within the input budget; the stage is called by the method and the name, or what the
        task writes for "write". `stage` gives another name than the template's.

        The largest n of the first n records of `history` that fit beside the rest is shown; `blocks` names the
        templates that make up the block of the record at an index. If not even one fits, one is kept and its text is
        cut (to `overlong_budget`, if there is one), then its long fields (`Task.long_fields`), then those of the
        target. `given` takes the place of values of the instance's own. `texts` are further values; a text (one that a
        model wrote earlier, say) may take at most
        half of the budget. With `soft` the placeholders of templates and `texts` become the prompt's slots, and `texts`
        stay whole. Raises `ConfigError` if the bare template does not fit.
        """
        target = {**instance.given, **(given or {})}
        texts, limit = texts or {}, self.input_budget // 2

        def rendering(filled: Mapping[str, str]) -> _Rendering:
            named = stage or name
            return _Rendering(self, instance.id, name, named, blocks, filled, soft, len(history), self.input_budget)

        made = rendering(texts)
        if not soft and texts:
            # Counting them would take as long as much of the prompt, whose length hardly ever leaves a doubt.
            shown, prompt = made.fitted(history, target)
            if shown and all(self.chat.keeps(prompt, text, limit) for text in texts.values()):
                return prompt
            made = rendering({key: self.chat.cut(text, limit) for key, text in texts.items()})
        shown, prompt = made.fitted(history, target)
        if shown or (not history and made.fits((), target)):
            return prompt
        if history and self.overlong_budget is not None:
            made.budget = max(self.overlong_budget(), self.input_budget)
        return made.squeezed(history[:1], target)


def _earlier(peer: Record, instance: Instance) -> bool:
    return peer.timestamp is not None and instance.timestamp is not None and peer.timestamp < instance.timestamp


@dataclass
class _Rendering:
    """One template with everything but the history blocks and the target's values fixed."""

    context: Context
    instance: str
    name: str
    stage: str
    blocks: Callable[[int], Sequence[str]]
    texts: Mapping[str, str]
    soft: bool
    offered: int
    budget: int
    _trial: Trial = field(init=False)
    _frame: tuple[Fields, dict[str, str]] | None = field(init=False, default=None)
    _parts: dict[int, tuple[Record, list[str]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._trial = self.context.chat.trial()

    def fitted(self, history: Sequence[Record], target: Fields) -> tuple[int, Prompt]:
        """How many of the history's first records fit, and the prompt with them; no more of them are rendered than
        that takes."""
        density = self.context.chat.density
        bare = self.prompt((), target)
        prompts = {0: bare}
        weights = [density.weight(bare.system) + density.weight(bare.user)]
        ratio = density.ratio

        def weight(n: int) -> float:
            for index in range(len(weights) - 1, n):
                block = self._block(index, history[index]) if self._shows_history else ()
                weights.append(weights[-1] + sum(map(density.weight, block)))
            return weights[n]

        def guess() -> int:
            return next((n for n in range(len(history)) if ratio * weight(n + 1) > self.budget), len(history))

        def fits(n: int) -> bool:
            nonlocal ratio
            first = len(prompts) == 1
            prompts[n] = self.prompt(history[:n], target)
            kept = self._trial.fits(prompts[n], self.budget)
            if self._trial.tokens is not None:
                ratio = self._trial.tokens / weight(n)
                if first:
                    density.learn(weight(n), self._trial.tokens)
            return kept

        shown = fitting(len(history), fits, guess)
        # What is sent has the last word.
        while shown and self.context.chat.count(prompts[shown]) > self.budget:
            shown -= 1
            prompts.setdefault(shown, self.prompt(history[:shown], target))
        return shown, prompts[shown]

    def prompt(self, records: Sequence[Record], target: Fields) -> Prompt:
        """The prompt with these history blocks."""
        context = self.context
        shown = records if self._shows_history else ()
        history = "\n".join(part for index, record in enumerate(shown) for part in self._block(index, record))
        system, user = context.templates.render(
            self.name, {**self._target_values(target), "history": history, **self.texts}
        )
        return Prompt(
            stage=f"{context.method}_{context.task.target if self.stage == 'write' else self.stage}",
            system=system,
            user=user,
            blocks_shown=len(shown),
            blocks_offered=self.offered,
            slots=tuple(PLACEHOLDER.findall(f"{system}\n{user}")) if self.soft else (),
            marks=context.marks if self.soft else (),
        )

    @property
    def _shows_history(self) -> bool:
        """A wording of one's own may leave the history out."""
        return self.context.templates.holds(self.name, "history")

    def _target_values(self, target: Fields) -> dict[str, str]:
        """What a template may say of the target; made once for all probes with the same one."""
        if self._frame is None or self._frame[0] is not target:
            templates, values = self.context.templates, self._values(target)
            if "given" in templates:
                values["given"] = templates.part("given", values)
            if "instruction" in templates:
                values["instruction"] = templates.part("instruction", {})
            self._frame = target, values
        return self._frame[1]

    def _block(self, index: int, record: Record) -> list[str]:
        """The parts of a history block; made once for all probes with the same record there."""
        known = self._parts.get(index)
        if known is None or known[0] is not record:
            values = self._block_values(index, record)
            known = record, [self.context.templates.part(template, values) for template in self.blocks(index)]
            self._parts[index] = known
        return known[1]

    def _block_values(self, index: int, record: Record) -> dict[str, str]:
        values = self._values({**record.fields, "text": record.text})
        return values | {"number": str(index + 1), "index": str(index)}

    def _values(self, fields: Fields) -> dict[str, str]:
        def text(value: str | float) -> str:
            if isinstance(value, Absent):
                return value
            return without_placeholders(str(value), self.context.marks) if self.soft else str(value)

        return {name: text(value) for name, value in fields.items()}

    def fits(self, records: Sequence[Record], target: Fields) -> bool:
        """Whether the prompt keeps the budget."""
        return self._trial.fits(self.prompt(records, target), self.budget)

    def squeezed(self, first: Sequence[Record], target: Fields) -> Prompt:
        """A prompt that is too long with even one block: texts are cut, the least telling last."""
        kept = list(first)
        if kept:
            kept = [self._cut_text(kept[0], target)]
            for name in self._long(kept[0].fields) if not kept[0].text else ():
                kept = [self._cut_field(kept[0], name, target)]
        for name in self._long(target):
            if not self.fits(kept, target):
                cut = longest_prefix(str(target[name]), lambda text: self.fits(kept, {**target, name: text}))  # noqa: B023
                target = {**target, name: cut}
        prompt = self.prompt(kept, target)
        if self.context.chat.count(prompt) > self.budget:
            raise ConfigError(
                f"input_budget={self.budget} is too small for {self.instance}: the prompt {prompt.stage} takes "
                f"{self.context.chat.count(prompt)} tokens with all texts cut that may be; set a larger input_budget "
                "(or, with input_budget=model, a smaller max_new_tokens)"
            )
        return prompt

    def _long(self, fields: Fields) -> list[str]:
        return [name for name in self.context.task.long_fields if fields.get(name)]

    def _cut_text(self, record: Record, target: Fields) -> Record:
        text = longest_prefix(record.text, lambda text: self.fits([replace(record, text=text)], target))
        return replace(record, text=text)

    def _cut_field(self, record: Record, name: str, target: Fields) -> Record:
        def cut(text: str) -> Record:
            return replace(record, fields={**record.fields, name: text})

        return cut(longest_prefix(str(record.fields[name]), lambda text: self.fits([cut(text)], target)))

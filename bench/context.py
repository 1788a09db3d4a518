"""What a method and a retriever see of the run around them, for one category."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.chat import Chat
from bench.data.corpus import Corpus
from bench.errors import ConfigError, PluginError
from bench.prompts import Templates, fitting, longest_prefix
from bench.protocols import Retriever
from bench.records import Instance, Item, Prompt, Review


def derive_seed(*names: object) -> int:
    """A 32-bit seed from names alone: it depends on no order, batch size or worker count."""
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True)
class Context:
    """One category's data and the run's settings, as methods and retrievers use them."""

    corpus: Corpus
    templates: Templates
    chat: Chat
    retriever: Retriever | None
    k: int
    input_budget: int
    run_seed: int
    embedder: Callable[[Sequence[str], str], NDArray[np.float32]]

    def seed(self, *names: object) -> int:
        """A seed for what `names` name, derived from the run's seed."""
        return derive_seed(self.run_seed, *names)

    def embed(self, texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
        """Vectors of `texts`, shape (n, d), kept on disk between runs."""
        return self.embedder(texts, encoder)

    def retrieve(self, instance: Instance, candidates: Sequence[Review] | None = None) -> list[Review]:
        """The k reviews the retriever ranks highest, best first; from the whole profile unless `candidates` are
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

    def prompt(self, name: str, instance: Instance, history: Sequence[Review] = (), **values: str) -> Prompt:
        """Render template `name` within the input budget.

        The largest n of the first n reviews of `history` that fit beside the rest is shown. If not even one fits,
        one is kept and its text is cut, then its item's description, then the target item's description. A text
        that a model wrote earlier (`values`) may take at most half of the budget. Raises `ConfigError` if the
        bare template does not fit.
        """
        values = {key: self.chat.cut(text, self.input_budget // 2) for key, text in values.items()}

        def render(reviews: Sequence[tuple[Review, Item]], item: Item) -> Prompt:
            blocks = [self._block(number, review, about) for number, (review, about) in enumerate(reviews, 1)]
            system, user = self.templates.render(
                name,
                {
                    "item_title": item.title,
                    "item_description": item.description,
                    "output_rating": str(float(instance.rating)),
                    "output_title": instance.title,
                    "history": "\n".join(blocks),
                    **values,
                },
            )
            return Prompt(name, system, user, blocks_shown=len(blocks), blocks_offered=len(history))

        def fits(prompt: Prompt) -> bool:
            return self.chat.count(prompt) <= self.input_budget

        offered = [(review, self.corpus.item(review.asin)) for review in history]
        shown = fitting(len(offered), lambda n: fits(render(offered[:n], instance.item)))
        prompt = render(offered[:shown], instance.item)
        if shown or (not offered and fits(prompt)):
            return prompt
        return self._squeeze(render, fits, offered[:1], instance.item)

    def _squeeze(
        self,
        render: Callable[[Sequence[tuple[Review, Item]], Item], Prompt],
        fits: Callable[[Prompt], bool],
        first: list[tuple[Review, Item]],
        item: Item,
    ) -> Prompt:
        """A prompt that is too long with even one block: cut texts, the least telling last."""
        if first:
            ((review, about),) = first
            text = longest_prefix(review.text, lambda text: fits(render([(replace(review, text=text), about)], item)))
            review = replace(review, text=text)
            if not text:
                description = longest_prefix(
                    about.description,
                    lambda text: fits(render([(review, replace(about, description=text))], item)),
                )
                about = replace(about, description=description)
            first = [(review, about)]
        if not fits(render(first, item)):
            description = longest_prefix(
                item.description, lambda text: fits(render(first, replace(item, description=text)))
            )
            item = replace(item, description=description)
        prompt = render(first, item)
        if not fits(prompt):
            raise ConfigError(
                f"input_budget={self.input_budget} is too small: the prompt {prompt.stage} takes "
                f"{self.chat.count(prompt)} tokens without any text; set a larger input_budget"
            )
        return prompt

    def _block(self, number: int, review: Review, item: Item) -> str:
        return self.templates.block(
            {
                "number": str(number),
                "item_title": item.title,
                "item_description": item.description,
                "rating": str(float(review.rating)),
                "title": review.title,
                "text": review.text,
            }
        )

"""What a method and a retriever see of the run around them, for one category."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bench.chat import PLACEHOLDER, Chat, without_placeholders
from bench.data.corpus import Corpus
from bench.data.peers import Peers
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
    pool: Peers | None = None
    before_target: bool = False
    _user_vectors: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)

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

    def ranked(self, instance: Instance) -> list[Review]:
        """The whole profile in the retriever's order, best first. Raises `PluginError` as `retrieve` does."""
        return replace(self, k=len(instance.profile)).retrieve(instance)

    def peers(self, review: Review, instance: Instance) -> list[Review]:
        """What other users wrote about the item of `review`, in the order of their ids: never a text that anyone has
        to predict, nor one of the instance's user. Raises `PluginError` for a method that does not declare
        `inter_user`."""
        if self.pool is None:
            raise PluginError("a method that calls context.peers must declare inter_user=True")
        found = self.pool.of_item(review.asin, but=(review.user_id, instance.user_id))
        return [peer for peer in found if not self.before_target or peer.timestamp < instance.timestamp]

    def user_vector(self, user_id: str, encoder: str, otherwise: Sequence[Review] = ()) -> NDArray[np.float32]:
        """The mean of the vectors of a user's reviews in the pool of peers, shape (d,); of `otherwise` for a user who
        has none there."""
        if self.pool is None:
            raise PluginError("a method that calls context.user_vector must declare inter_user=True")
        key = (user_id, encoder)
        if key not in self._user_vectors:
            texts = [review.text for review in self.pool.of_user(user_id) or otherwise]
            self._user_vectors[key] = self.embed(texts, encoder).mean(axis=0)
        return self._user_vectors[key]

    def prompt(
        self,
        name: str,
        instance: Instance,
        history: Sequence[Review] = (),
        *,
        blocks: Callable[[int], Sequence[str]] = lambda _: ("block",),
        item: Item | None = None,
        soft: bool = False,
        **values: str,
    ) -> Prompt:
        """Render template `name` within the input budget.

        The largest n of the first n reviews of `history` that fit beside the rest is shown; `blocks` names the
        templates that make up the block of the review at an index. If not even one fits, one is kept and its text is
        cut, then its item's description, then the target item's description. A text that a model wrote earlier
        (`values`) may take at most half of the budget. `item` takes the place of the instance's. With `soft` the
        placeholders of templates and `values` become the prompt's slots. Raises `ConfigError` if the bare template does
        not fit.
        """
        if not soft:
            values = {key: self.chat.cut(text, self.input_budget // 2) for key, text in values.items()}
        clean = without_placeholders if soft else str

        def render(reviews: Sequence[tuple[Review, Item]], item: Item) -> Prompt:
            shown = [
                self.templates.block(
                    {
                        "number": str(index + 1),
                        "index": str(index),
                        "item_title": clean(about.title),
                        "item_description": clean(about.description),
                        "rating": str(float(review.rating)),
                        "title": clean(review.title),
                        "text": clean(review.text),
                    },
                    template,
                )
                for index, (review, about) in enumerate(reviews)
                for template in blocks(index)
            ]
            system, user = self.templates.render(
                name,
                {
                    "item_title": clean(item.title),
                    "item_description": clean(item.description),
                    "output_rating": str(float(instance.rating)),
                    "output_title": clean(instance.title),
                    "history": "\n".join(shown),
                    **values,
                },
            )
            slots = tuple(PLACEHOLDER.findall(f"{system}\n{user}")) if soft else ()
            return Prompt(name, system, user, blocks_shown=len(reviews), blocks_offered=len(history), slots=slots)

        def fits(prompt: Prompt) -> bool:
            return self.chat.count(prompt) <= self.input_budget

        about = instance.item if item is None else item
        offered = [(review, self.corpus.item(review.asin)) for review in history]
        shown = fitting(len(offered), lambda n: fits(render(offered[:n], about)))
        prompt = render(offered[:shown], about)
        if shown or (not offered and fits(prompt)):
            return prompt
        return self._squeeze(render, fits, offered[:1], about)

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

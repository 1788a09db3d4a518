"""How much a user's history changes the probability of each token of the user's real text (`train.loss=history`).

    influence_t = log p(y_t | prompt with the history, y_<t) - log p(y_t | prompt without it, y_<t)

in nats, on the frozen language model; the prompts are those of `rag` with the training's k and with k=0. In training a
token counts with its influence, clipped to `train.loss_clip` and divided by the mean over its text, so that texts weigh
as they do without it. Where no history is shown all tokens count alike.

The idea is that of PerCE (arXiv 2603.06595) and NextQuill (arXiv 2506.02368), which fine-tune the whole model with it
and estimate anew as it changes; here it is transferred to adapters, and estimated once, on the model that stays frozen.
Neither paper's bounds are taken over.

Kept in `results/influence/<readable-name>-<hash>/influence.jsonl`, a row an instance, for all methods that train on the
same prompts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.batching import batches
from bench.errors import BusyError
from bench.files import RowWriter, exclusive
from bench.identity import influence_identity
from bench.naming import readable_name
from bench.progress import Progress, say
from bench.records import Instance
from bench.resolved import Run
from bench.results import InfluenceRow, identity_hash, rows_of, sound_rows
from bench.softprompt.objective import answer_losses
from bench.softprompt.trainer import example_of

Nats = NDArray[np.float32]
"""A number for each target token of a text."""

Piece = tuple[str, float | None]
"""A piece of a text with the weight of its token; None: it is not trained on."""

METHOD = "rag"
"""The method whose prompts show the history: one call, nothing but the frozen model, fit for every task."""
TOGETHER = 64
"""Instances between two times that what was found is kept."""


def token_weights(nats: Nats, clip: tuple[float, float]) -> Nats:
    """How much each token counts, shape (n,), 1 on average, by its influence of the same shape."""
    clipped = np.clip(nats, *clip)
    weights: Nats = (clipped / clipped.mean()).astype(np.float32)
    return weights


class Influence:
    """The influence of the history on the training texts of an adapter; `training` is the run whose prompts it is
    trained on. Raises `MisfitError` where the retriever does not fit the task's data."""

    def __init__(self, training: Run) -> None:
        self._training = training
        config = training.config
        self._with, self._without = (
            Run(config.model_copy(update={"method": METHOD, "k": k}), training.inputs) for k in (config.k, 0)
        )

    @cached_property
    def identity(self) -> str:
        """A hash of everything that can change a number."""
        return identity_hash(influence_identity(self._with, self._training.config.training))

    @property
    def path(self) -> Path:
        """Where the numbers are kept."""
        name = f"{readable_name(self._with)}-{self.identity}"
        return self._training.config.results / "influence" / name / "influence.jsonl"

    def kept(self) -> Mapping[str, Nats]:
        """What is kept, by instance. Raises `DamagedError` for a row that is not as it was written."""
        return _by_instance(rows_of(InfluenceRow, self.path, self.identity))

    def weighed(self, instance: Instance, nats: Nats) -> list[Piece]:
        """The text of an instance in pieces that make it up, each with the weight of its token; None for what is no
        target, behind the last one. Raises `ConfigError` for a tokenizer that does not tell where its tokens stand."""
        training = self._training
        settings = training.config.training
        assert settings.max_target_tokens is not None
        text = training.corpora[instance.category].reference(instance).strip()
        spans = training.chat.answer_spans(text, settings.max_target_tokens, bool(settings.cut_target_ends))
        weights = token_weights(nats, settings.loss_clip)
        pieces: list[Piece] = []
        end = 0
        for (_, stop), weight in zip(spans, weights.tolist(), strict=True):
            if stop > end:
                pieces.append((text[end:stop], weight))
                end = stop
            elif pieces:
                # A further token of the same character, or the end of the turn.
                pieces[-1] = (pieces[-1][0], max(pieces[-1][1] or 0.0, weight))
        return [*pieces, (text[end:], None)] if end < len(text) else pieces

    def of(self, instances: Sequence[Instance], model: Any, tokens_per_batch: int) -> list[Nats]:
        """The influence on the text of each instance; what is missing is computed on `model`, a frozen transformers
        causal language model, and kept. Waits for another process that is at it. Raises `BenchError`."""
        with _in_turn(self.path.parent):
            known = _by_instance(sound_rows(InfluenceRow, self.path, self.identity, say))
            missing = [instance for instance in instances if instance.id not in known]
            if missing:
                known = {**known, **self._add(missing, model, tokens_per_batch)}
        return [known[instance.id] for instance in instances]

    def _add(self, instances: Sequence[Instance], model: Any, tokens_per_batch: int) -> Mapping[str, Nats]:
        started = time.perf_counter()
        progress = Progress("influence of the history", len(instances))
        writer = RowWriter(self.path, self.identity)
        found: list[InfluenceRow] = []
        try:
            for start in range(0, len(instances), TOGETHER):
                part = instances[start : start + TOGETHER]
                rows = self._compute(part, model, tokens_per_batch)
                for row in rows:
                    writer.append(row.json_object())
                found += rows
                progress.update(finished=len(part))
        finally:
            writer.close()
            progress.close()
        without = sum(not any(row.nats) for row in found)
        say(
            f"influence of the history on {len(found):,} texts, {without} of them without any, in "
            f"{time.perf_counter() - started:.0f} s"
        )
        return _by_instance(found)

    def _compute(self, instances: Sequence[Instance], model: Any, tokens_per_batch: int) -> list[InfluenceRow]:
        settings, runs = self._training.config.training, (self._with, self._without)
        pairs = [[example_of(run, instance, settings) for run in runs] for instance in instances]
        # Behind the same tokens every token has the same probability.
        differ = [pair for pair in pairs if not np.array_equal(pair[0].ids, pair[1].ids)]
        examples = [one for pair in differ for one in pair]
        losses: dict[int, Nats] = {}
        for rows in batches([len(one.ids) for one in examples], tokens_per_batch):
            batch = [examples[row] for row in rows]
            losses |= {id(one): loss for one, loss in zip(batch, answer_losses(model, batch), strict=True)}
        found = []
        for instance, (shown, bare) in zip(instances, pairs, strict=True):
            nats = losses[id(bare)] - losses[id(shown)] if id(shown) in losses else np.zeros(shown.target_tokens)
            found.append(InfluenceRow(instance=instance.id, nats=[round(float(number), 4) for number in nats]))
        return found


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, for which others are waited for."""
    told = False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(folder))
                break
            except BusyError:
                if not told:
                    say(f"waiting for another process that writes to {folder}")
                told = True
                time.sleep(0.5)
        yield


def _by_instance(rows: Iterable[InfluenceRow]) -> Mapping[str, Nats]:
    return {row.instance: np.array(row.nats, np.float32) for row in rows}

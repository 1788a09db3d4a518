"""A language model as the judge of whether a text reads as if the user had written it, on a scale of 0 to 10."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bench.addresses import without_credentials
from bench.batch import Batch
from bench.config import Seed, Temperature, Tokens
from bench.errors import BackendError, ConfigError, DataError, ResourceError
from bench.files import RowWriter
from bench.metrics._ratios import ratio, sums
from bench.progress import Progress, say
from bench.protocols import Array, Column
from bench.records import Call, Completion, Instance, Prompt, said
from bench.results import Stored, sound_rows
from bench.servers.fleet import Client
from bench.servers.settings import OpenAISettings
from bench.templates import Templates

TEMPLATE = Path(__file__).with_name("_judge_prompt.txt")
ANSWERS = "judge.jsonl"
_SCORE = re.compile(r"(?:(?:final )?score *[:=]? *)?(\d{1,2}(?:\.\d+)?)(?: *(?:/|out of) *10)?\.?", re.IGNORECASE)
_DECORATION = re.compile(r"[*_`#>]")


@dataclass(frozen=True)
class Judge:
    """Mean score of a language model on a server of the OpenAI API, in [0, 10]; never part of a shipped configuration.

    The judge sees the newest `reviews` of the user's profile, each cut at `excerpt` characters, what the text is about,
    the reference and the prediction. Its raw answers are kept in judge.jsonl of the run's folder, keyed by instance,
    prompt and signature. One whose last line is a score from 0 to 10 is never asked for twice. `judge_unparsed` is the
    share of the others, which are left out of the mean; they are asked for again, once and with the next seed, whenever
    the rows are made: after a server that failed, and where a category has no score at all. An empty prediction is not
    sent: it scores 0.

    `openai` is the server's section of the configuration (`--set judge.openai.base_url=...`); the key comes from the
    environment variable OPENAI_API_KEY and from nowhere else.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("judge", "Judge", 2, 2),
        Column("judge_unparsed", "Unparsed", 3, better="lower"),
    )
    statistics: ClassVar[tuple[str, ...]] = ("score", "parsed")
    reads_data: ClassVar[bool] = True
    asks: ClassVar[bool] = True

    model: str = ""
    reviews: Annotated[int, Field(ge=1)] = 5
    excerpt: Annotated[int, Field(ge=1)] = 1000
    max_new_tokens: Tokens = 512
    temperature: Temperature = 0.0
    seed: Seed = 0
    openai: OpenAISettings = field(default_factory=OpenAISettings)

    def check(self) -> None:
        """Raises `ConfigError` without a model or with a key in the server's address, `ResourceError` without the
        package openai. The server is not asked."""
        if not self.model:
            raise ConfigError("judge.model is not set; name the judging model as its server knows it, judge.model=...")
        if any(without_credentials(url) != url for url in self.openai.addresses):
            raise ConfigError(
                "judge.openai.base_url holds a user name, a password or a query, which run.json would keep; leave it "
                "out and set the environment variable OPENAI_API_KEY"
            )
        if importlib.util.find_spec("openai") is None:
            raise ResourceError("judge: the package openai is not installed; run: pip install openai")

    def signature(self) -> str:
        """The model as its server names it: what the server runs under that name cannot be told from here."""
        template = hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()[:8]
        settings = f"reviews:{self.reviews}|excerpt:{self.excerpt}|tokens:{self.max_new_tokens}"
        sampling = f"temperature:{self.temperature:g}|seed:{self.seed}|extra:{json.dumps(self.openai.extra_body)}"
        model = self.openai.served_model or self.model
        return f"judge|model:{model}|scale:0-10|{settings}|{sampling}|prompt:{template}"

    def rows(self, batch: Batch) -> Array:
        """For each prediction the score (0 without one) and whether the answer was a score (0 or 1), shape (n, 2).

        Raises `BackendError` for a server that does not answer, `DataError` if no answer in a category is a score.
        """
        parts = zip(batch.instances, batch.about, batch.predictions, batch.references, strict=True)
        calls = [self._call(instance, about, text.strip(), reference) for instance, about, text, reference in parts]
        path = batch.folder / ANSWERS
        answers = self._answers(path, [call for call in calls if call is not None])
        scores = [answers[call.key[0], call.prompt.hash].score if call else 0.0 for call in calls]
        by_category: dict[str, list[float | None]] = {}
        for instance, call, score in zip(batch.instances, calls, scores, strict=True):
            if call is not None:
                by_category.setdefault(instance.category, []).append(score)
        for category, found in by_category.items():
            if all(score is None for score in found):
                raise DataError(
                    f"judge: none of {len(found)} answers about {category} ends in a line with a score from 0 to 10; "
                    f"they are kept in {path}: read some, then run again to have them asked again, or set another "
                    "judge.model or more judge.max_new_tokens, or leave judge out of the metrics"
                )
        rows = [[0.0, 0.0] if score is None else [score, 1.0] for score in scores]
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    def aggregate(self, rows: Array, weights: Array | None = None) -> Mapping[str, Array]:
        """See `Metric.aggregate`. A resample without any score has the mean of all `rows`. Raises `DataError` without
        rows or without any score."""
        score, parsed = np.moveaxis(sums(rows, weights, "judge"), -1, 0)
        plain = sums(rows, None, "judge")
        if plain[1] == 0:
            raise DataError(f"judge: none of {len(rows)} answers could be read as a score; see {ANSWERS} in the run")
        count = len(rows) if weights is None else weights.sum(axis=1)
        return {"judge": ratio(score, parsed, otherwise=plain[0] / plain[1]), "judge_unparsed": 1.0 - parsed / count}

    def _call(self, instance: Instance, about: str, prediction: str, reference: str) -> Call | None:
        """What the judge is asked; nothing about an empty prediction."""
        if not prediction:
            return None
        history = [record.text[: self.excerpt] for record in instance.profile[-self.reviews :]]
        values = {
            "item": about,
            "history": "\n\n".join(history) or "(none)",
            "reference": reference,
            "candidate": prediction,
        }
        values["fence"] = fence(values.values())
        template = TEMPLATE.read_text(encoding="utf-8").rstrip("\n")
        system, user = Templates({"judge": template}, {"judge": "judge"}).render("judge", values)
        prompt = Prompt("judge", system, user)
        return Call((instance.id, "judge", 0), prompt, self.seed, self.temperature, 1.0, self.max_new_tokens)

    def _answers(self, path: Path, calls: Sequence[Call]) -> dict[tuple[str, str], _Answer]:
        """The answers in the file by instance and prompt; the server is asked for those that are missing and for those
        without a score."""
        signature = self.signature()
        kept = [answer for answer in sound_rows(_Answer, path, "judge", say) if answer.signature == signature]
        known = {(answer.instance, answer.prompt): answer for answer in kept}
        tries = Counter((answer.instance, answer.prompt) for answer in kept)
        missing = []
        for call in calls:
            key = (call.key[0], call.prompt.hash)
            if key not in known or known[key].score is None:
                missing.append(replace(call, seed=call.seed + tries[key]))
        if not missing:
            return known
        with (
            closing(RowWriter(path, "judge")) as answers,
            # An answer without text is one without a score.
            closing(Client(self.openai.model_copy(update={"empty": "keep"}), self.model)) as client,
            closing(Progress("judge", len(missing))) as progress,
        ):
            for call in missing:
                client.submit(call)
            asked = len(missing)
            while asked:
                for call, completion in _completed(client):
                    key = (call.key[0], call.prompt.hash)
                    known[key] = _Answer(instance=key[0], prompt=key[1], signature=signature, **asdict(completion))
                    answers.append(known[key].json_object())
                    asked -= 1
                    progress.update(finished=1, tokens=completion.completion_tokens or 0)
        return known


class _Answer(Stored):
    """A row of the file of answers: the raw answer to a prompt about an instance, under a signature."""

    instance: str
    prompt: str
    signature: str
    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    seconds: float

    @property
    def score(self) -> float | None:
        """See `parse_score`."""
        return parse_score(said(self.text), self.finish_reason)


def parse_score(text: str, finish_reason: str) -> float | None:
    """The score in an answer's last line; None if that is not a score from 0 to 10, or if the answer was cut off, which
    may have left 1 of 10."""
    lines = text.strip().splitlines()
    if not lines or finish_reason == "length":
        return None
    found = _SCORE.fullmatch(_DECORATION.sub("", lines[-1]).strip())
    score = float(found.group(1)) if found else None
    return score if score is not None and score <= 10 else None


def fence(texts: Iterable[str]) -> str:
    """A mark that stands in none of the texts: their hash, which no text can hold unless its writer knew the others."""
    content = "\x1f".join(texts)
    mark = ""
    while not mark or mark in content:
        mark = hashlib.sha256(f"{mark}{content}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return mark


def _completed(client: Client) -> Iterator[tuple[Call, Completion]]:
    try:
        yield from client.completed()
    except BackendError as error:
        raise BackendError(f"judge: {error} The judge's server is set by judge.openai, not openai.") from error

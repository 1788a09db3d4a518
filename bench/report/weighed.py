"""What an adapter was trained on with `train.loss=history`: its texts as heat maps of their tokens' weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import RunConfig
from bench.errors import BenchError
from bench.places import without_paths
from bench.records import Instance
from bench.report import heat
from bench.report.markup import escape_html
from bench.resolved import Inputs, Run

if TYPE_CHECKING:
    from bench.softprompt.influence import Influence, Nats, Piece

SHOWN = 5
"""Training texts of a category that a report shows."""


def weighed_texts(run: Run) -> WeighedTexts | None:
    """The weighted training texts of a run's adapter; None for a run without."""
    if run.config.train.loss == "plain" or not hasattr(run.method, "adapter"):
        return None
    from bench.softprompt.trained import TrainedAdapter, adapter_of

    adapter = adapter_of(run)
    if not isinstance(adapter, TrainedAdapter) or adapter.influence is None:
        return None
    return WeighedTexts(adapter.training, adapter.instances, adapter.influence)


class WeighedTexts:
    """The training texts of an adapter whose tokens count unlike, as far as that is kept."""

    def __init__(self, training: Run, instances: Sequence[Instance], influence: Influence) -> None:
        self._training = training
        self._influence = influence
        self.path = influence.path
        self._kept: Mapping[str, Nats] = influence.kept()
        self.instances = [instance for instance in instances if instance.id in self._kept]

    def pieces(self, instance: Instance) -> list[Piece]:
        """A text in pieces with their weights. Raises `ConfigError` as `Influence.weighed` does."""
        return self._influence.weighed(instance, self._kept[instance.id])

    def facts(self, instance: Instance) -> Mapping[str, str]:
        """What a person is shown of an instance."""
        return self._training.task.shown(instance)


def page(runs: Sequence[tuple[str, RunConfig]], places: Collection[str]) -> list[str]:
    """The part of a report that shows the first weighted texts of each category, once for adapters that were trained on
    the same: of labelled runs, nothing for runs without. Of `places` in a message their last parts are shown."""
    parts: list[str] = []
    seen: set[Path] = set()
    inputs = Inputs()
    for label, config in runs:
        if config.train.loss == "plain":
            continue
        try:
            texts = weighed_texts(Run(config, inputs))
            if texts is None or texts.path in seen:
                continue
            seen.add(texts.path)
            content = list(_shown(texts))
        except BenchError as error:
            content = [f"<p>They cannot be shown: {escape_html(without_paths(str(error), places))}</p>"]
        parts += [f"<h3>{escape_html(label)}</h3>", *content]
    if not parts:
        return []
    introduction = (
        "Adapters with train.loss=history were trained on these texts, among others, each token with a weight of its "
        "own: how much the user's history changes its log-probability on the frozen model."
    )
    return [f"<p>{escape_html(introduction)}</p>", heat.html_legend(), *parts]


def _shown(texts: WeighedTexts) -> Iterator[str]:
    taken: dict[str, int] = {}
    for instance in texts.instances:
        taken[instance.category] = taken.get(instance.category, 0) + 1
        if taken[instance.category] <= SHOWN:
            facts = "; ".join(f"{name}: {value}" for name, value in texts.facts(instance).items())
            yield f"<h4>{escape_html(instance.id)}</h4><p class='head'>{escape_html(facts)}</p>"
            yield heat.html(texts.pieces(instance))

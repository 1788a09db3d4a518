"""Sizes of a data set and, for the generated demo, what predictions without a model score on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from bench.data.corpus import Corpus


def describe(corpora: Mapping[str, Corpus]) -> str:
    """A line a category and split: instances, profile size in reviews and length of the reference in characters,
    mean and population standard deviation."""
    rows = []
    for category, corpus in corpora.items():
        for split, instances in corpus.instances.items():
            profiles = np.asarray([len(instance.profile) for instance in instances])
            lengths = np.asarray([len(corpus.reference(instance)) for instance in instances])
            rows.append([category, split, len(instances), len(corpus.items), _spread(profiles), _spread(lengths)])
    heads = ["category", "split", "instances", "items", "profile size (reviews)", "output length (characters)"]
    notes = [note for corpus in corpora.values() for note in corpus.notes]
    return "\n".join([tabulate(rows, headers=heads), "", *dict.fromkeys(notes)])


def _spread(values: NDArray[np.int64]) -> str:
    return f"{values.mean():.2f} ± {values.std():.2f}" if len(values) else "–"


def demo_floors() -> str:
    """What predictions that need no model score on the demo, as a sentence."""
    from bench.data.demo import floors

    scores = floors()
    return (
        f"ROUGE-1 without a model on the test split: the user's last review {scores['copy']:.3f}, another user's "
        f"review of the item {scores['peer']:.3f}, any other user's review {scores['random']:.3f}; the same user "
        f"reviewing the same item again (the oracle) {scores['oracle']:.3f}."
    )

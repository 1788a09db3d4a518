"""Generated raw files in the layout of Amazon Reviews 2023, of any size, for measuring `bench data prepare`.

    python tests/benchmarks/raw_reviews.py --reviews 1000000 --out FOLDER [--gzip]

Writes FOLDER/reviews.jsonl and FOLDER/items.jsonl. What decides the cost of preparing follows the published figures of
Books (29.5 million reviews, 10.3 million users, 4.4 million items; 20 GB and 15 GB): about 650 bytes a review and 3,300
an item with the fields of the real files, activity of users and popularity of items with power-law tails (most users
write one review, a few write thousands), circles of readers who meet on the same items, a user's reviews in a row,
users who paste the same text, review an item twice, or write two reviews at the same moment. The words are noise.
"""

from __future__ import annotations

import argparse
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

_PER_USER = 2.86  # reviews a user writes on average
_PER_ITEM = 6.7
_CIRCLE = 20_000
_BLOCK = 100_000  # lines that are made at a time
_IMAGE = (
    '{"thumb": "https://example.org/%s._SX38.jpg", "large": "https://example.org/%s.jpg", '
    '"variant": "MAIN", "hi_res": null}'
)


class _Words:
    """Runs of words, already escaped for JSON: slices of one long text."""

    def __init__(self, generator: np.random.Generator, size: int) -> None:
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        lengths = generator.integers(2, 10, 30_000)
        words = ["".join(generator.choice(letters, length)) for length in lengths]
        words[30:170:20] = ["<br /><br />", "don't", '\\"so\\"', "it\\u2019s", "\\n\\n", "naïve", "\\u2014"]
        picked = generator.zipf(1.3, size) % len(words)
        pieces = [words[index] for index in picked]
        self._text = " ".join(pieces)
        ends = np.cumsum([len(piece) + 1 for piece in pieces])
        self._starts = np.concatenate([[0], ends[:-1]])

    def runs(self, generator: np.random.Generator, lengths: NDArray[np.int64]) -> list[str]:
        """A run of about each length, in characters."""
        last = int(np.searchsorted(self._starts, len(self._text) - int(lengths.max(initial=0)) - 40)) - 1
        first = self._starts[generator.integers(0, last, len(lengths))]
        end = self._starts[np.searchsorted(self._starts, first + lengths)] - 1
        text = self._text
        return [text[a:b] for a, b in zip(first.tolist(), end.tolist(), strict=True)]


def _user_id(number: int) -> str:
    return f"AE{zlib.crc32(b'%d' % number):08X}{number:018d}"


def _asin(number: int) -> str:
    return f"{number:010d}" if number % 3 else f"B0{number:08d}"


def _activity(generator: np.random.Generator, reviews: int) -> NDArray[np.int64]:
    """Reviews of each user: a power law with the mean of Books, cut at 4,000, `reviews` in sum."""
    counts = np.minimum(generator.zipf(2.05, int(reviews / _PER_USER * 1.5) + 10), 4000)
    users = int(np.searchsorted(np.cumsum(counts), reviews)) + 1
    counts = counts[:users]
    counts[-1] -= counts.sum() - reviews
    return cast(NDArray[np.int64], counts[counts > 0])


def _items_read(
    generator: np.random.Generator, users: NDArray[np.int64], items: int, circles: int
) -> NDArray[np.int64]:
    """The item of each review: popular with everyone or with the user's circle; another one each time."""
    width = max(1, items // circles)
    found = np.full(len(users), -1)
    left = np.arange(len(users))
    for _ in range(8):
        size = len(left)
        anyone = (items * generator.random(size) ** 4).astype(np.int64)
        own = (users[left] % circles) * width + (width * generator.random(size) ** 10).astype(np.int64)
        # Neighbours in popularity lie far from each other in the file.
        found[left] = (np.where(generator.random(size) < 0.2, anyone, own) * 7919) % items
        first = np.unique(users * items + found, return_index=True)[1]
        left = np.setdiff1d(np.arange(len(users)), first, assume_unique=True)
    return found


def _lines_of_reviews(generator: np.random.Generator, words: _Words, reviews: int, items: int) -> Iterator[str]:
    users = np.repeat(np.arange(len(counts := _activity(generator, reviews))), counts)
    circles = max(1, len(counts) // _CIRCLE)
    for start in range(0, reviews, _BLOCK):
        user = users[start : start + _BLOCK]
        size = len(user)
        item = _items_read(generator, user, items, circles)
        again = np.flatnonzero(generator.random(size) < 0.012)
        item[again[again > 0]] = item[again[again > 0] - 1]
        lengths = np.clip(np.exp(generator.normal(5.3, 1.15, size)), 2, 12_000).astype(np.int64)
        texts = words.runs(generator, lengths)
        for index in np.flatnonzero(generator.random(size) < 0.004):
            texts[index] = texts[index - 1]
        titles = words.runs(generator, generator.integers(4, 60, size))
        times = 1_000_000_000_000 + generator.integers(0, 690_000_000_000, size)
        same = np.flatnonzero(generator.random(size) < 0.01)
        times[same] = times[same - 1]
        ratings = generator.choice([1, 2, 3, 4, 5], size, p=[0.06, 0.05, 0.1, 0.2, 0.59])
        pictures = generator.random(size) < 0.04
        columns = zip(
            user.tolist(),
            item.tolist(),
            ratings.tolist(),
            titles,
            texts,
            times.tolist(),
            pictures.tolist(),
            strict=True,
        )
        yield "".join(
            f'{{"rating": {rating}.0, "title": "{title}", "text": "{text}", '
            f'"images": [{_IMAGE % (time, time) if picture else ""}], "asin": "{(asin := _asin(n))}", '
            f'"parent_asin": "{asin}", "user_id": "{_user_id(who)}", "timestamp": {time}, "helpful_vote": {n % 7}, '
            f'"verified_purchase": true}}\n'
            for who, n, rating, title, text, time, picture in columns
        )


def _lines_of_items(generator: np.random.Generator, words: _Words, items: int) -> Iterator[str]:
    for start in range(0, items, _BLOCK // 4):
        size = min(_BLOCK // 4, items - start)
        kind = generator.random(size)
        lengths = np.exp(generator.normal(6.3, 0.8, size)).astype(np.int64)
        lengths = np.clip(np.where(kind < 0.2, 0, lengths), 0, 9_000)
        descriptions = words.runs(generator, lengths)
        titles = words.runs(generator, generator.integers(8, 90, size))
        rest = words.runs(generator, np.clip(generator.normal(1_600, 500, size), 40, 5_000).astype(np.int64))
        numbers = generator.geometric(0.08, size)
        for n in range(size):
            asin = _asin(start + n)
            heading = '"Product Description", ' if kind[n] > 0.9 else ""
            description = f'[{heading}"{descriptions[n]}"]' if lengths[n] else "[]"
            image = _IMAGE % (asin, asin)
            yield (
                f'{{"main_category": "Books", "title": "{titles[n]}", "average_rating": 4.5, '
                f'"rating_number": {numbers[n]}, "features": ["{rest[n][:600].rsplit(" ", 1)[0]}"], '
                f'"description": {description}, "price": 9.99, "images": [{image}, {image}, {image}], "videos": [], '
                f'"store": "Somebody (Author)", "categories": ["Books", "Literature & Fiction", "Genre Fiction"], '
                f'"details": {{"Publisher": "{titles[n]}", "Language": "English", "Paperback": "{numbers[n]} pages", '
                f'"Item Weight": "12 ounces", "Dimensions": "5 x 1 x 8 inches"}}, "parent_asin": "{asin}", '
                f'"bought_together": null, "subtitle": "Paperback", "author": {{"avatar": "https://example.org/a.jpg", '
                f'"name": "Somebody", "about": ["{rest[n][600:].partition(" ")[2]}"]}}}}\n'
            )


def generate(folder: Path, reviews: int, seed: int = 0, compress: bool = False) -> None:
    """Write the files of `reviews` reviews into `folder`; the same for the same seed."""
    generator = np.random.default_rng(seed)
    words = _Words(generator, 1_500_000)
    items = max(50, int(reviews / _PER_ITEM))
    ending = ".jsonl.gz" if compress else ".jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"reviews{ending}", folder / f"items{ending}"
    lines = _lines_of_reviews(generator, words, reviews, items), _lines_of_items(generator, words, items)
    for path, some in zip(paths, lines, strict=True):
        with cast(IO[bytes], gzip.open(path, "wb", compresslevel=6) if compress else path.open("wb")) as file:
            for text in some:
                file.write(text.encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write generated raw files in the layout of Amazon Reviews 2023.")
    parser.add_argument("--reviews", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    generate(options.out, options.reviews, compress=options.gzip)

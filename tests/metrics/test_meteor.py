"""METEOR against NLTK's with the real WordNet and a real sentence model, and what happens where one is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.batch import Batch
from bench.errors import DataError, ResourceError
from bench.metrics import _wordnet
from bench.metrics._words import Punkt, TreebankWords, find_punkt
from bench.metrics.meteor import Meteor


@pytest.fixture(scope="module")
def nltk_wordnet(nltk_data: Path) -> object:
    from nltk.corpus.reader import WordNetCorpusReader

    return WordNetCorpusReader(str(nltk_data / "corpora" / "wordnet"), None)


@pytest.mark.filterwarnings("ignore:The multilingual functions")
@pytest.mark.parametrize("tokenizer", ["word_tokenize", "treebank"])
def test_equals_nltk(pairs: list[tuple[str, str]], nltk_wordnet: object, tokenizer: str) -> None:
    from nltk.tokenize import word_tokenize
    from nltk.translate.meteor_score import meteor_score

    whole = tokenizer == "treebank"
    expected = [
        meteor_score(
            [word_tokenize(reference, preserve_line=whole)],
            word_tokenize(prediction.strip(), preserve_line=whole),
            wordnet=nltk_wordnet,
        )
        for prediction, reference in pairs
    ]
    metric = Meteor(tokenizer=tokenizer)
    rows = metric.rows(Batch([p for p, _ in pairs], [r for _, r in pairs]))
    assert rows.shape == (len(pairs), 1)
    np.testing.assert_allclose(rows[:, 0], expected, rtol=0, atol=1e-9)
    assert metric.aggregate(rows)["meteor"] == pytest.approx(np.mean(expected), abs=1e-9)
    # The second time references come from memory.
    again = metric.rows(Batch([p for p, _ in pairs], [r for _, r in pairs]))
    assert (rows == again).all()


def test_the_sentence_split_moves_the_number(nltk_data: Path) -> None:
    prediction, reference = "It was a dog. Loved it", "A dog loved that. It was"
    scores = [Meteor(tokenizer=t).rows(Batch([prediction], [reference]))[0, 0] for t in ("word_tokenize", "treebank")]
    assert scores[0] > scores[1]


def test_by_hand(nltk_data: Path) -> None:
    cases = [
        ("the cat sat on the mat", "the cat sat on the mat", 1 - 0.5 * (1 / 6) ** 3),  # one chunk of six
        ("the car", "the auto", 1 - 0.5 * (1 / 2) ** 3),  # a synonym
        ("dogs", "dog", 0.5),  # a stem; a lone match is a chunk of its own
        # "movie" is in WordNet, its stem "movi" is not: NLTK compares the stems. One match of three.
        ("the film commenced", "the movie began", 1 / 3 * 0.5),
        # Each "the" takes the last one free, so no two matches are neighbours on both sides: six chunks.
        ("on the mat sat the cat", "the cat sat on the mat", 0.5),
        # Two of two words, two of four: recall counts nine times.
        ("a b", "a b c d", (1 * 0.5) / (0.9 * 1 + 0.1 * 0.5) * (1 - 0.5 * (1 / 2) ** 3)),
        ("", "nothing", 0),
    ]
    scores = Meteor().rows(Batch([case[0] for case in cases], [case[1] for case in cases]))[:, 0]
    np.testing.assert_allclose(scores, [case[2] for case in cases], atol=1e-12)


@pytest.mark.parametrize("text", ["", " \n", "\U0001f600", "\ud800 lone"])
def test_odd_texts_do_not_crash(nltk_data: Path, text: str) -> None:
    assert Meteor().rows(Batch([text, "word"], ["word", text])).tolist() == [[0], [0]]


_PIECES = r"""
    a I.t cannot wanna gonna more'n d'ye 'tis 'TWAS don't dogs' 's 'S '' " ` `` ' . .. ... ? ! , : ; - -- ( ) [ ] < >
    * # & @ $ % 1 1,5 1: x. x." x.) y: y, z,, «q» “q” ‘q’ — – я. 好。 é, _ "a a" 'a' (" ("b").
"""
PIECES = st.sampled_from([*_PIECES.split(), "\u00a0", "\x1c", "\x00"])
GAPS = st.sampled_from(["", "", " ", " ", " ", "  ", "\n", "\t", "\r\n", "\n "])
TEXTS = st.lists(st.tuples(PIECES, GAPS), max_size=14).map(lambda parts: "".join(piece + gap for piece, gap in parts))


@settings(max_examples=800, deadline=None)
@given(st.lists(TEXTS, max_size=3))
@example(['"a', ' "a', '\n"a', "Hello. \" ' )", "x' ' y", "wanna", "wanna.", "Mr. X.", "a\x00 \x00 b, c;"])
def test_words_equal_nltks(sentences: list[str]) -> None:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    expected = [word.lower() for sentence in sentences for word in NLTKWordTokenizer().tokenize(sentence)]
    words = TreebankWords()
    assert words(sentences) == expected
    assert words(sentences) == expected  # from memory


def test_sentences_equal_nltks(pairs: list[tuple[str, str]], nltk_data: Path) -> None:
    from nltk.tokenize import sent_tokenize

    punkt = find_punkt([str(nltk_data)])
    assert punkt is not None
    split = punkt.splitter()
    texts = [text for pair in pairs for text in pair]
    expected = [sent_tokenize(text) for text in texts]
    assert [split(text) for text in texts] == expected
    assert sum(map(len, expected)) > 3 * len(texts)


_NEXT_TO_PERIODS = """
    the film movie. movie! End. etc. Dr. dr. U.S. e.g. A.M. a.m. J. Bach x 1. 3.5 (He it.) "So" "end." no.yes ... .. ?!
    wow!! go, .
"""
NEXT_TO_PERIODS = st.sampled_from(_NEXT_TO_PERIODS.split())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NEXT_TO_PERIODS, st.sampled_from([" ", " ", "  ", "\n", ""])), max_size=12))
def test_sentence_ends_equal_nltks(nltk_data: Path, parts: list[tuple[str, str]]) -> None:
    from nltk.tokenize import sent_tokenize

    text = "".join(piece + gap for piece, gap in parts)
    assert _splitter(nltk_data)(text) == sent_tokenize(text)


@lru_cache(maxsize=1)
def _splitter(nltk_data: Path) -> Callable[[str], list[str]]:
    punkt = find_punkt([str(nltk_data)])
    assert punkt is not None
    return punkt.splitter()


@pytest.mark.filterwarnings("ignore:The multilingual functions")
def test_synonyms_equal_nltks(nltk_wordnet: object, wordnet_files: _wordnet.Source) -> None:
    mine = _wordnet.WordNet(wordnet_files)
    words = [line.split(b" ")[0].decode() for line in wordnet_files.read("index.verb").split(b"\n")[40::25] if line]
    for name in ("noun", "adj", "adv"):
        words += [
            line.split(b" ")[0].decode() for line in wordnet_files.read(f"index.{name}").split(b"\n")[40::97] if line
        ]
    irregular = [line.split()[0] for name in ("noun", "verb", "adj") for line in _exceptions(wordnet_files, name)]
    words += irregular[::10] + [
        word + suffix for word in words[::3] for suffix in ("s", "es", "ed", "ing", "er", "men")
    ]
    words += ["was", "s", "es", "men", "better", "galore", "好", "a_b", "\ud800"]
    assert len(words) > 3000
    for word in words:
        names = {lemma.name() for synset in nltk_wordnet.synsets(word) for lemma in synset.lemmas()}  # type: ignore[attr-defined]
        assert mine[word] == {name for name in names if "_" not in name} - {word}


def _exceptions(source: _wordnet.Source, name: str) -> list[str]:
    return source.read(f"{name}.exc").decode().splitlines()


def test_the_data_path_comes_before_the_system(nltk_data: Path, wordnet_files: _wordnet.Source) -> None:
    assert _wordnet.find([str(nltk_data)]) == _wordnet.Source("nltk", nltk_data / "corpora" / "wordnet")
    assert "|wordnet:3.0[nltk]|" in Meteor().signature()


def test_zip_files_as_nltks_downloader_leaves_them(nltk_data: Path, tmp_path: Path) -> None:
    for kind, name in (("corpora", "wordnet"), ("tokenizers", "punkt_tab")):
        (tmp_path / kind).mkdir()
        with zipfile.ZipFile(tmp_path / kind / f"{name}.zip", "w") as archive:
            for file in sorted((nltk_data / kind / name).rglob("*.*")):
                archive.write(file, file.relative_to(nltk_data / kind))
    wordnet, punkt = _wordnet.find([str(tmp_path)]), find_punkt([str(tmp_path)])
    assert wordnet is not None
    assert wordnet.path.suffix == ".zip"
    assert _wordnet.WordNet(wordnet)["film"] >= {"movie", "picture"}
    folder = find_punkt([str(nltk_data)])
    assert punkt is not None
    assert folder is not None
    assert punkt.digest() == folder.digest()
    assert punkt.splitter()("One. Two.") == folder.splitter()("One. Two.")


def test_the_signature_names_what_moves_the_number(nltk_data: Path) -> None:
    import nltk

    punkt = find_punkt([str(nltk_data)])
    assert punkt is not None
    settings_ = "meteor|alpha:0.9|beta:3|gamma:0.5"
    rest = f"stem:porter|wordnet:3.0[nltk]|nltk:{nltk.__version__}"
    model = f"tok:word_tokenize[punkt_tab:{punkt.digest()}]"
    assert Meteor().signature() == f"{settings_}|{model}|{rest}"
    assert Meteor(tokenizer="treebank").signature() == f"{settings_}|tok:treebank|{rest}"


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(_wordnet, "SYSTEM", tmp_path / "none")


@pytest.mark.usefixtures("no_data")
def test_missing_data_stops_with_the_one_command(
    wordnet_files: _wordnet.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Meteor()
    for use in (metric.check, metric.signature, lambda: metric.rows(Batch(["a"], ["a"]))):
        with pytest.raises(ResourceError, match=r"run: python -m nltk\.downloader wordnet punkt_tab$"):
            use()
    with pytest.raises(ResourceError, match=r"run: python -m nltk\.downloader wordnet$"):
        Meteor(tokenizer="treebank").check()
    monkeypatch.setattr(_wordnet, "find", lambda _: wordnet_files)
    with pytest.raises(ResourceError, match=r"downloader punkt_tab, or ask for .* meteor\.tokenizer=treebank$"):
        metric.check()
    Meteor(tokenizer="treebank").check()


def test_half_a_wordnet_is_none(nltk_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wordnet, "SYSTEM", tmp_path / "none")
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in _wordnet.NEEDED[1:]:
        (folder / name).symlink_to(nltk_data / "corpora" / "wordnet" / name)
    assert _wordnet.find([str(tmp_path)]) is None
    (tmp_path / "corpora" / "wordnet.zip").write_bytes(b"torn")
    assert _wordnet.find([str(tmp_path)]) is None
    english = tmp_path / "tokenizers" / "punkt_tab" / "english"
    english.mkdir(parents=True)
    (english / "abbrev_types.txt").write_text("dr")
    assert not Punkt(english).complete


def test_another_wordnet_version_is_refused(nltk_data: Path, tmp_path: Path) -> None:
    for name in _wordnet.NEEDED:
        (tmp_path / name).symlink_to(nltk_data / "corpora" / "wordnet" / name)
    data = (tmp_path / "data.noun").read_bytes().replace(b"WordNet 3.0 Copyright", b"WordNet 3.1 Copyright")
    (tmp_path / "data.noun").unlink()
    (tmp_path / "data.noun").write_bytes(data)
    with pytest.raises(ResourceError, match=r"has version 3\.1, METEOR is defined with 3\.0"):
        _wordnet.WordNet(_wordnet.Source("nltk", tmp_path))


def test_nothing_to_aggregate_is_an_error(nltk_data: Path) -> None:
    assert Meteor().rows(Batch([], [])).shape == (0, 1)
    with pytest.raises(DataError, match="meteor: there are no rows to aggregate"):
        Meteor().aggregate(np.zeros((0, 1)))
    scores = Meteor().aggregate(np.array([[0.2], [0.6]]), np.array([[1.0, 1.0], [0.0, 2.0]]))
    np.testing.assert_allclose(scores["meteor"], [0.4, 0.6])


@pytest.mark.parametrize(
    "environment",
    [{}, {"NLTK_DATA": "~/mine:/data::"}, {"APPENGINE_RUNTIME": "x"}, {"HOME": "/"}, {"HOME": "/nowhere/"}],
    ids=str,
)
def test_the_data_path_is_nltks(environment: dict[str, str]) -> None:
    code = (
        "import sys; from bench.metrics._wordnet import nltk_path\n"
        "own = nltk_path(); assert 'nltk' not in sys.modules\n"
        "import nltk.data; assert own == nltk.data.path, (own, nltk.data.path)\n"
        "nltk.data.path.append('/added'); assert nltk_path()[-1] == '/added'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr

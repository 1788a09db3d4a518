"""Pairs of texts of every sort, and NLTK's data in a folder of its own."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bench.batch import Background
from bench.encoders import load_encoder
from bench.metrics import _wordnet
from bench.records import Instance, Record

_WORDS = """
    the a an this that it its and but or so because when while although is was were are be been had has have do does
    did not very really quite rather too also only just even still again never always story stories plot ending movie
    movies film films book books author character characters actor actors scene scenes music sound picture cast war
    love death family child children woman women man men dog dogs wolves knives city cities watch watched watching
    read reading reads like liked loves loved enjoy enjoyed enjoying buy bought think thought feel felt find found
    make made making better best worse worst funnier happiest good great big large beautiful lovely dull boring
    tedious slow quick fast brilliant superb excellent awful terrible happily sadly quickly entire whole minute
    minutes year years begin began begun commence start started film's can't don't won't it's I'm they're we've I'd
    cannot gonna wanna gimme gotta lemme well-known 3.5 1,000 10:30 $20 50% U.S. Dr. e.g. etc. A.M. rock'n'roll 'tis
"""
WORDS = _WORDS.split()
MARKS = (
    ". ",
    ". ",
    ". ",
    "! ",
    "? ",
    "... ",
    ", ",
    ", ",
    "; ",
    ": ",
    " - ",
    " -- ",
    ".) ",
    '." ',
    " (",
    ' "',
    "\n",
    ".\n\n",
)

ODD = (
    "",
    " ",
    "\n\t\n",
    ".",
    "...",
    '"',
    "''",
    "``",
    "\u201cSmart quotes,\u201d she said \u2014 \u2018really?\u2019",
    'He said "no". "Yes," I said.',
    '"Quoted from the start." And on.',
    "\"\n'a' \"b\"\nc'\n'd",
    "It's the dogs' bone, isn't it? 'Twas. 'Tis 'tis more'n d'ye wanna",
    "I loved it \U0001f600\U0001f44d\U0001f3fd!! \u2764\ufe0f\u2764\ufe0f 10/10",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "<b>Great</b> movie<br /><br />Would buy &amp; watch again &quot;soon&quot; &lt;3",
    '<a href="https://example.org/a?b=1&c=2">link</a>',
    "line one\nline two\r\nline three\ttabbed\u00a0hard space\u2028separator\x0bvt\x1cfs\x85nel",
    "hyphen-\nated and skipped <skipped> text",
    "我非常喜欢这部电影。很好！",
    "Это очень хороший фильм. Мне понравилось!",
    "هذا الفيلم رائع، أحببته.",
    "हम को पसंद आया।",
    "na\u00efve caf\u00e9 \u0130stanbul \u212aelvin \u017ftrange stra\u00dfe \u01c5 e\u0301",
    "a.b.c. ... .. . .' .\" .) .] '.' ).",
    ",, , ,a ,,b c,, d:e f::g :: : 1,2 3:4 5,x",
    "x' 'y 'z' ''w'' ```v``` \"u\" 't's' 'll n't N'T",
    "((nested) [brackets] {braces} <angles>)",
    "*starred* #hash @at 50% A&B a;b",
    "ALL CAPS SHOUTING!!! sOmE MiXeD",
    "under_score ice_cream __ _a_ -- --- a--b \u2013 \u2014 \u2015 \u2012",
    "1234567890 3.14159 1,000,000.00 12:30 -5 +7 1/2",
    "a" * 500,
    "word " * 320,
    "no.space.after.periods.at all.Really",
    "\u200bzero\u200bwidth \ufeffbom",
    "\x00nul\x00 \x00 bell\x07",
)


def sentence_text(random_: random.Random, characters: int) -> str:
    """English-like text of about that many characters."""
    parts: list[str] = []
    length, start = 0, True
    while length < characters:
        word = random_.choice(WORDS)
        parts.append(word.capitalize() if start else word)
        mark = random_.choice(MARKS) if random_.random() < 0.15 else " "
        start = mark[0] in ".!?\n"
        parts.append(mark)
        length += len(parts[-1]) + len(parts[-2])
    return "".join(parts)[:characters]


@pytest.fixture(scope="session")
def pairs() -> list[tuple[str, str]]:
    """Predictions and references: English of several lengths, near copies, every odd text on both sides."""
    random_ = random.Random(20261120)
    drawn = [(sentence_text(random_, n), sentence_text(random_, n)) for n in (30, 150, 400, 800) for _ in range(45)]
    drawn += [(sentence_text(random_, 1600), sentence_text(random_, 1600)) for _ in range(20)]
    for _ in range(30):
        words = sentence_text(random_, 300).split(" ")
        near = [random_.choice(WORDS) if random_.random() < 0.2 else word for word in words]
        drawn.append((" ".join(near), " ".join(words)))
    drawn += [(odd, odd) for odd in ODD]
    drawn += [(odd, sentence_text(random_, 200)) for odd in ODD]
    drawn += [(sentence_text(random_, 200), odd) for odd in ODD]
    mixed = [" ".join(random_.choices(ODD, k=3)) for _ in range(40)]
    drawn += list(zip(mixed, reversed(mixed), strict=True))
    assert len(drawn) >= 300
    return drawn


@pytest.fixture
def background_with(tmp_path: Path) -> Callable[..., Background]:
    """Makes a background of users u0, u1, ... with profiles of these texts, each the other ones' peer."""

    def make(profiles: Sequence[Sequence[str]]) -> Background:
        users = [f"u{number}" for number in range(len(profiles))]
        records = {
            user: tuple(Record(user, text, {}, f"B{time}", time) for time, text in enumerate(texts))
            for user, texts in zip(users, profiles, strict=True)
        }
        return Background(
            instances=[
                Instance(f"Toys/test/{user}", "Toys", "test", user, {}, records[user], "A1", 99) for user in users
            ],
            histories=[records] * len(users),
            about=["Red Kite\nA kite of red cloth."] * len(users),
            embed=lambda texts, _: load_encoder("hashed-ngrams").encode(texts),
            folder=tmp_path,
        )

    return make


@pytest.fixture(scope="session")
def wordnet_files() -> _wordnet.Source:
    """The WordNet of this machine; without one the METEOR tests cannot compare with anything."""
    import nltk.data

    source = _wordnet.find(nltk.data.path)
    if source is None:
        pytest.fail("no WordNet 3.0 on this machine; run: python -m nltk.downloader wordnet")
    return source


@pytest.fixture(scope="module")
def nltk_data(tmp_path_factory: pytest.TempPathFactory, wordnet_files: _wordnet.Source) -> Iterator[Path]:
    """A folder that NLTK takes as its only data path: WordNet completed by what Debian leaves out, and a sentence model
    trained here on generated text."""
    import nltk.data
    import nltk.tokenize

    folder = tmp_path_factory.mktemp("nltk_data")
    _complete_wordnet(wordnet_files, folder / "corpora" / "wordnet")
    _train_punkt(folder / "tokenizers" / "punkt_tab" / "english")
    before = list(nltk.data.path)
    nltk.data.path[:] = [str(folder)]
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    yield folder
    nltk.data.path[:] = before
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    shutil.rmtree(folder)


def _complete_wordnet(source: _wordnet.Source, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in _wordnet.NEEDED:
        (folder / name).write_bytes(source.read(name))
    # Names of the lexicographer files, which METEOR never reads; NLTK's reader only counts them.
    (folder / "lexnames").write_text("".join(f"{i:02d}\tname{i}\t1\n" for i in range(45)))
    (folder / "index.sense").write_text("")


def _train_punkt(folder: Path) -> None:
    from nltk.tokenize.punkt import PunktTrainer

    random_ = random.Random(7)
    trainer = PunktTrainer()
    trainer.INCLUDE_ALL_COLLOCS = True
    trainer.train(" ".join(sentence_text(random_, 2000) for _ in range(12)))
    learnt = trainer.get_params()
    assert {"u.s", "e.g"} <= learnt.abbrev_types
    folder.mkdir(parents=True)
    (folder / "abbrev_types.txt").write_text("\n".join(sorted(learnt.abbrev_types)))
    (folder / "sent_starters.txt").write_text("\n".join(sorted(learnt.sent_starters)))
    (folder / "collocations.tab").write_text("\n".join("\t".join(pair) for pair in sorted(learnt.collocations)))
    (folder / "ortho_context.tab").write_text("\n".join(f"{w}\t{f}" for w, f in sorted(learnt.ortho_context.items())))

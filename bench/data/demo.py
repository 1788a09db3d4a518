"""The embedded demo data: three categories of generated reviews, the same on every machine.

An example of a review (Books, 4.0 stars, title "The map is vivid"):

    Picked this up for my birthday. I found the map on the endpapers really vivid, and it rings true. ...

Items have facts that every reviewer sees and of which the description tells two or three. Users have habits
(openings, closings, remarks, favourite words, sentence frames, punctuation, what they look at, how generous they are)
and follow a habit with probability `PERSISTENCE` each time, otherwise they do what anybody might do. Everything
follows from `random.Random(<string>).random()`, whose values are the same for all Python versions.

The population that the demo's language model was pre-trained on is another: other users and items, and its
inventories of style (openings, closings, remarks, verdicts, connectors, intensifiers), names, titles, places and topics
share no entry with this one (`demo_phrases`). Both share plain adjectives, reasons, sentence frames, aspects, roles'
grammar and the patterns of descriptions.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import accumulate, product
from typing import TypeVar

from bench import registry
from bench.batch import Batch
from bench.data import demo_phrases as words
from bench.data.corpus import SPLITS, Corpus
from bench.data.demo_phrases import KINDS, Kind
from bench.data.splitting import user_instances
from bench.data.thresholds import INPUTS
from bench.records import Instance, Record
from bench.tasks.reviews import Item, review

CATEGORIES = tuple(KINDS)
PERSISTENCE = 0.6
USERS_PER_CATEGORY = 168
REVIEWERS_PER_ITEM = 8
MIN_HISTORY, MAX_HISTORY = 8, 14
SLOTS = ("who", "place", "topic", "second", "moment", "detail", "aspect")
_DAY = 86_400_000
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PREPOSITION = re.compile(
    r" (?:of|in|on|at|up|to|near|with|between|inside|outside|under|above|over|about|for|from|by|across|behind|the) "
)

T = TypeVar("T")


class Dice:
    """Draws that depend on nothing but the name of the dice."""

    def __init__(self, name: str) -> None:
        self.unit = random.Random(name).random

    def below(self, n: int) -> int:
        return int(self.unit() * n)

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, drawn in proportion to its weight."""
        above = accumulate(weights, initial=-self.unit() * sum(weights))
        return min(bisect_right(list(above), 0.0), len(weights)) - 1

    def several(self, options: Sequence[T], count: int) -> tuple[T, ...]:
        """`count` different entries of `options`."""
        rest = list(options)
        return tuple(rest.pop(self.below(len(rest))) for _ in range(min(count, len(rest))))

    def code(self, length: int) -> str:
        return "".join(self.pick(_ALPHABET) for _ in range(length))


@dataclass(frozen=True)
class Phrases:
    """The inventories of one population; openings may hold `{thing}` and `{verb}`, frames `{s}` (what it is about),
    `{be}`, `{i}` (an intensifier) and `{a}` (an adjective)."""

    first_names: Sequence[str]
    surnames: Sequence[str]
    place_names: Sequence[str]
    adjectives: Sequence[str]
    nouns: Sequence[str]
    topics: Sequence[str]
    openings: Sequence[str]
    good_closings: Sequence[str]
    bad_closings: Sequence[str]
    remarks: Sequence[str]
    verdict_heads: Sequence[str]
    praise: Sequence[str]
    blame: Sequence[str]
    connectors: Sequence[str]
    intensifiers: Sequence[str]
    good: Sequence[str] = words.GOOD
    bad: Sequence[str] = words.BAD
    good_reasons: Sequence[str] = words.GOOD_REASONS
    bad_reasons: Sequence[str] = words.BAD_REASONS
    frames: Sequence[str] = words.FRAMES


@cache
def phrases(pretraining: bool = False) -> Phrases:
    """The inventories of the benchmark (even positions of every list) or of the pre-training population (odd ones)."""

    def half(entries: Sequence[str]) -> Sequence[str]:
        return entries[int(pretraining) :: 2]

    def joined(heads: Sequence[str], tails: Sequence[str], glue: str = " ") -> Sequence[str]:
        return [glue.join(pair) for pair in product(half(heads), half(tails))]

    return Phrases(
        first_names=half(words.FIRST_NAMES),
        surnames=joined(words.SURNAME_HEADS, words.SURNAME_TAILS, ""),
        place_names=half(words.PLACE_NAMES),
        adjectives=half(words.TITLE_ADJECTIVES),
        nouns=half(words.TITLE_NOUNS),
        topics=half(words.TOPICS),
        openings=joined(words.OPENING_HEADS, words.OPENING_TAILS),
        good_closings=joined(words.GOOD_CLOSING_HEADS, words.CLOSING_TAILS, ", "),
        bad_closings=joined(words.BAD_CLOSING_HEADS, words.CLOSING_TAILS, ", "),
        remarks=joined(words.REMARK_HEADS, words.REMARK_TAILS),
        verdict_heads=half(words.VERDICT_HEADS),
        praise=half(words.PRAISE),
        blame=half(words.BLAME),
        connectors=half(words.CONNECTORS),
        intensifiers=half(words.INTENSIFIERS),
    )


@dataclass(frozen=True)
class Fact:
    """Something about an item that its reviewers may mention: `quality` runs from -1 to 1."""

    slot: str
    subject: str
    good: str
    bad: str
    good_reason: str
    bad_reason: str
    quality: float
    salience: float
    told: bool

    @cached_property
    def short(self) -> str:
        """The subject without what follows its head noun: "the fire in the archive" -> "the fire"."""
        return _PREPOSITION.split(self.subject + " ", maxsplit=1)[0].strip()

    @cached_property
    def be(self) -> str:
        head = self.short
        return "are" if head.startswith("the ") and head.endswith("s") and not head.endswith("ss") else "is"


@dataclass(frozen=True)
class Thing:
    """An item with everything its reviewers know of it."""

    item: Item
    genre: int
    facts: tuple[Fact, ...]

    @property
    def quality(self) -> float:
        return sum(fact.quality for fact in self.facts) / len(self.facts)


@dataclass(frozen=True)
class User:
    """A reviewer's habits. Where several are kept, the first is the most usual."""

    id: str
    openings: Sequence[str]
    good_closings: Sequence[str]
    bad_closings: Sequence[str]
    remarks: Sequence[str]
    verdict_heads: Sequence[str]
    praise: Sequence[str]
    blame: Sequence[str]
    connectors: Sequence[str]
    intensifiers: Sequence[str]
    good: Sequence[str]
    bad: Sequence[str]
    frames: Sequence[str]
    good_titles: Sequence[str]
    bad_titles: Sequence[str]
    opens: float
    closes: float
    remarks_often: float
    concludes: float
    connects: float
    intensifies: float
    reasons: float
    sentences: int
    mark: str
    lowercase: bool
    interest: Mapping[str, float]
    generosity: float
    genres: Sequence[float]


@dataclass(frozen=True)
class Plan:
    """What is given to whoever writes the review: its rating, its title and the fact that the title is about."""

    rating: float
    title: str
    fact: Fact


@dataclass
class Written:
    """A review's text with a record of what it is made of."""

    text: str = ""
    opening: str = ""
    closing: str = ""
    remark: str = ""
    verdict: str = ""
    connectors: list[str] = field(default_factory=list)
    intensifiers: list[str] = field(default_factory=list)
    adjectives: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    signs: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """One category's population: who reviewed what, in the order of time."""

    name: str
    kind: Kind
    phrases: Phrases
    users: tuple[User, ...]
    things: tuple[Thing, ...]
    shelves: tuple[tuple[int, ...], ...]
    """For each user, the things reviewed, by index, ascending in time."""
    persistence: float = PERSISTENCE
    """How often a user follows a habit."""

    def habit(self, dice: Dice, own: Sequence[str], everybody: Sequence[str]) -> str:
        """One of the user's own phrases, the first most often, with probability `persistence`, else anybody's."""
        if not dice.chance(self.persistence):
            return dice.pick(everybody)
        return own[dice.weighted((0.5, 0.3, 0.2)[: len(own)])]


def _title(dice: Dice, said: Phrases) -> str:
    noun, noun2 = dice.several(said.nouns, 2)
    frame = dice.pick(words.TITLE_FRAMES)
    title = frame.format(
        adjective=dice.pick(said.adjectives),
        noun=noun,
        noun2=noun2,
        place=dice.pick(said.place_names),
        first=dice.pick(said.first_names),
    )
    return with_articles(title)


def _full_name(dice: Dice, said: Phrases) -> str:
    return f"{dice.pick(said.first_names)} {dice.pick(said.surnames)}"


def make_thing(dice: Dice, kind: Kind, said: Phrases) -> Thing:
    """An item with a description of 20 to 30 words and ten facts."""
    genre = dice.below(len(kind.genres))
    subjects = {
        "who": _full_name(dice, said),
        "place": dice.pick(kind.places).format(name=dice.pick(said.place_names)),
        "topic": dice.pick(said.topics),
        "second": f"{dice.pick(said.first_names)} {dice.pick(kind.seconds)}",
        "moment": f"{dice.pick(kind.moments)} {dice.pick(kind.scenes)}",
    }
    frame = dice.pick(kind.descriptions)
    description = frame.format(
        genre=kind.genres[genre],
        maker_name=_full_name(dice, said),
        role=dice.pick(kind.roles),
        extra=" ".join(dice.several(kind.extras, 1 + dice.below(2))),
        **{slot: subjects[slot] for slot in ("who", "place", "topic")},
    )
    quality = dice.between(-0.7, 1.0)
    facts = [_fact(dice, said, slot, subject, quality, f"{{{slot}}}" in frame) for slot, subject in subjects.items()]
    facts += [_fact(dice, said, "detail", subject, quality, False) for subject in dice.several(kind.details, 2)]
    facts += [_fact(dice, said, "aspect", subject, quality, False) for subject in dice.several(kind.aspects, 3)]
    asin = "B0" + dice.code(8)
    return Thing(Item(asin, _title(dice, said), _upper(with_articles(description))), genre, tuple(facts))


def _fact(dice: Dice, said: Phrases, slot: str, subject: str, quality: float, told: bool) -> Fact:
    return Fact(
        slot=slot,
        subject=f"the story of {subject}" if slot == "topic" else subject,
        good=dice.pick(said.good),
        bad=dice.pick(said.bad),
        good_reason=dice.pick(said.good_reasons),
        bad_reason=dice.pick(said.bad_reasons),
        quality=max(-1.0, min(1.0, quality + dice.between(-0.8, 0.8))),
        salience=dice.pick((0.15, 1.0, 8.0)),
        told=told,
    )


def make_user(dice: Dice, kind: Kind, said: Phrases) -> User:
    """A user with habits drawn from the population's inventories."""

    def often(yes: float, high: float = 0.95, low: float = 0.1) -> float:
        return high if dice.chance(yes) else low

    liked = dice.several(SLOTS, 3)
    return User(
        id="A" + dice.code(13),
        openings=dice.several(said.openings, 3),
        good_closings=dice.several(said.good_closings, 2),
        bad_closings=dice.several(said.bad_closings, 2),
        remarks=dice.several(said.remarks, 2),
        verdict_heads=dice.several(said.verdict_heads, 2),
        praise=dice.several(said.praise, 2),
        blame=dice.several(said.blame, 2),
        connectors=dice.several(said.connectors, 3),
        intensifiers=dice.several(said.intensifiers, 2),
        good=dice.several(said.good, 3),
        bad=dice.several(said.bad, 3),
        frames=dice.several(said.frames, 3),
        good_titles=dice.several(words.GOOD_TITLES, 3),
        bad_titles=dice.several(words.BAD_TITLES, 3),
        opens=often(0.6),
        closes=often(0.55),
        remarks_often=often(0.3, 0.7, 0.05),
        concludes=often(0.4, 0.8),
        connects=often(0.4, 0.6),
        intensifies=often(0.5, 0.85, 0.3),
        reasons=often(0.6, 0.9, 0.2),
        sentences=dice.pick((2, 2, 3)),
        mark=(".", ".", ".", "!", "!", "...", " -")[dice.below(7)],
        lowercase=dice.chance(0.1),
        interest={slot: 6.0 if slot in liked else 1.0 for slot in SLOTS},
        generosity=dice.between(-1.0, 1.0),
        genres=tuple(5.0 if index in dice.several(range(6), 2) else 1.0 for index in range(len(kind.genres))),
    )


def plan(dice: Dice, world: World, user: User, thing: Thing) -> Plan:
    """How the user rates the thing and what the review is called."""
    said = world.phrases
    wish = 3.7 + 1.8 * thing.quality + 0.7 * user.generosity + dice.between(-1.0, 1.0)
    rating = float(max(1, min(5, int(wish + 0.5))))
    fact = thing.facts[dice.weighted(_weights(user, thing))]
    good = rating >= 4.0 or (rating == 3.0 and fact.quality > 0)
    own, everybody = (user.good_titles, words.GOOD_TITLES) if good else (user.bad_titles, words.BAD_TITLES)
    adjective = world.habit(dice, (fact.good,) if good else (fact.bad,), said.good if good else said.bad)
    subject = fact.short if " " in fact.short else fact.subject
    second = dice.pick(user.good if good else user.bad)
    title = world.habit(dice, own, everybody).format(
        a=adjective,
        A=_upper(adjective),
        a2=second,
        s=subject,
        S=_upper(subject),
        be=fact.be,
        genre=world.kind.genres[thing.genre],
        thing=world.kind.thing,
    )
    return Plan(rating, with_articles(title), fact)


def write(dice: Dice, world: World, user: User, thing: Thing, given: Plan) -> Written:
    """The user's review of a thing under a rating and a title. Another dice is the same user on another day."""
    out = Written()
    parts: list[str] = []
    good = given.rating >= 4.0 or (given.rating == 3.0 and dice.chance(0.5))
    if dice.chance(user.opens):
        opening = world.habit(dice, user.openings, world.phrases.openings)
        out.opening = opening.format(thing=world.kind.thing, verb=world.kind.verb)
        parts.append(out.opening)
    for index, fact in enumerate(_mentioned(dice, user, thing, given)):
        sentence = _sentence(dice, world, user, fact, given.rating, out)
        if index and dice.chance(user.connects):
            out.connectors.append(world.habit(dice, user.connectors, world.phrases.connectors))
            sentence = f"{out.connectors[-1]}, {sentence}"
        parts.append(sentence)
    if dice.chance(user.remarks_often):
        out.remark = world.habit(dice, user.remarks, world.phrases.remarks)
        parts.append(out.remark)
    if dice.chance(user.concludes):
        own, everybody = (user.praise, world.phrases.praise) if good else (user.blame, world.phrases.blame)
        head = world.habit(dice, user.verdict_heads, world.phrases.verdict_heads)
        out.verdict = f"{head}, {world.habit(dice, own, everybody)}"
        parts.append(out.verdict)
    if dice.chance(user.closes):
        own, everybody = (
            (user.good_closings, world.phrases.good_closings)
            if good
            else (user.bad_closings, world.phrases.bad_closings)
        )
        out.closing = world.habit(dice, own, everybody)
        parts.append(out.closing)
    out.text = _punctuate(dice, world, user, parts)
    return out


def _mentioned(dice: Dice, user: User, thing: Thing, given: Plan) -> list[Fact]:
    count = max(2, user.sentences + dice.pick((0, 0, 0, -1, 1)))
    chosen = [given.fact] if dice.chance(0.9) else []
    rest = [fact for fact in thing.facts if fact is not given.fact]
    while len(chosen) < count:
        weights = [user.interest[fact.slot] * fact.salience for fact in rest]
        chosen.append(rest.pop(dice.weighted(weights)))
    return chosen


def _sentence(dice: Dice, world: World, user: User, fact: Fact, rating: float, out: Written) -> str:
    good = 0.8 * fact.quality + 0.6 * (rating - 3.2) + dice.between(-0.5, 0.5) > 0
    own, everybody = (user.good, world.phrases.good) if good else (user.bad, world.phrases.bad)
    shared = fact.good if good else fact.bad
    adjective = shared if dice.chance(0.8) else world.habit(dice, own, everybody)
    strength = world.habit(dice, user.intensifiers, world.phrases.intensifiers) if dice.chance(user.intensifies) else ""
    sentence = world.habit(dice, user.frames, world.phrases.frames).format(
        s=fact.subject, be=fact.be, i=strength, a=adjective, I=_upper(strength or "\0")
    )
    if "\0" in sentence:
        sentence = sentence.replace("\0 " + adjective, _upper(adjective))
    sentence = " ".join(sentence.split())
    if dice.chance(user.reasons):
        sentence += f", {fact.good_reason if good else fact.bad_reason}"
    out.facts.append(fact)
    out.signs.append(good)
    out.adjectives.append(adjective)
    if strength:
        out.intensifiers.append(strength)
    return sentence


def _punctuate(dice: Dice, world: World, user: User, parts: Iterable[str]) -> str:
    text = ""
    for part in parts:
        mark = (
            user.mark if dice.chance(world.persistence) else (".", ".", ".", ".", ".", ".", "!", "...")[dice.below(8)]
        )
        text += _upper(part) + mark + " "
    text = text.strip()
    if text.endswith(" -"):
        text = text[:-2] + "."
    return text.lower() if user.lowercase and dice.chance(0.8) else text


def _weights(user: User, thing: Thing) -> list[float]:
    return [user.interest[fact.slot] * fact.salience for fact in thing.facts]


def with_articles(text: str) -> str:
    """ "a" before a vowel becomes "an"."""
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def make_world(
    category: str,
    name: str,
    users: int = USERS_PER_CATEGORY,
    said: Phrases | None = None,
    persistence: float = PERSISTENCE,
) -> World:
    """A population of one category in which every item has three reviewers or more (usually eight)."""
    kind, inventory = KINDS[category], said or phrases()
    people: dict[str, User] = {}
    while len(people) < users:
        user = make_user(Dice(f"{name}/{category}/user/{len(people)}"), kind, inventory)
        people[user.id] = user
    crowd = tuple(people.values())
    dice = Dice(f"{name}/{category}/shelves")
    needs = [INPUTS + MIN_HISTORY + dice.below(MAX_HISTORY - MIN_HISTORY + 1) for _ in crowd]
    things: list[Thing] = []
    shelves: list[list[int]] = [[] for _ in crowd]
    while any(len(shelf) < INPUTS + MIN_HISTORY for shelf in shelves):
        thing = make_thing(Dice(f"{name}/{category}/item/{len(things)}"), kind, inventory)
        wanted = REVIEWERS_PER_ITEM - 2 + dice.below(5)
        for reader in _readers(dice, crowd, needs, shelves, thing.genre, wanted):
            shelves[reader].append(len(things))
        things.append(thing)
    sorted_out = tuple(tuple(_shuffled(dice, shelf)) for shelf in shelves)
    return World(name, kind, inventory, crowd, tuple(things), sorted_out, persistence)


def _readers(
    dice: Dice, crowd: Sequence[User], needs: Sequence[int], shelves: Sequence[Sequence[int]], genre: int, wanted: int
) -> list[int]:
    """Different users for one item, those who still need many reviews and like its genre first."""
    weights = [
        (need - len(shelf)) ** 2 * user.genres[genre] if need > len(shelf) else 0.0
        for user, need, shelf in zip(crowd, needs, shelves, strict=True)
    ]
    if len(weights) - weights.count(0.0) < wanted:
        # Near the end too few still need reviews: let others who have room on their shelves join in.
        room = [max(0, INPUTS + MAX_HISTORY - len(shelf)) for shelf in shelves]
        short = [INPUTS + MIN_HISTORY - len(shelf) for shelf in shelves]
        weights = [space + (10_000.0 if gap > 0 else 0.0) for space, gap in zip(room, short, strict=True)]
    chosen: list[int] = []
    for _ in range(min(wanted, len(weights) - weights.count(0.0))):
        reader = dice.weighted(weights)
        chosen.append(reader)
        weights[reader] = 0.0
    return chosen


Review = tuple[Record, Thing]
"""A review and what it is of."""


def _shuffled(dice: Dice, values: Sequence[int]) -> tuple[int, ...]:
    return dice.several(values, len(values))


def review_dice(world: World, user: User, thing: Thing, day: int = 0) -> tuple[Plan, Dice]:
    """The plan of a user's review of a thing and the dice of its text. Day 0 is the review in the data; another
    day is the same user writing again under the same rating and title, which is what the oracle does."""
    name = f"{world.name}/{world.kind.category}/{user.id}/{thing.item.asin}"
    return plan(Dice(f"{name}/plan"), world, user, thing), Dice(f"{name}/text/{day}")


def reviews(world: World, user: int) -> list[tuple[Record, Thing, Written]]:
    """A user's reviews, ascending in time, with what they are made of."""
    person = world.users[user]
    dice = Dice(f"{world.name}/{world.kind.category}/{person.id}/time")
    now = 1_388_534_400_000 + int(dice.unit() * 1500 * _DAY)
    result = []
    for index in world.shelves[user]:
        thing = world.things[index]
        now += int(dice.between(2.0, 90.0) * _DAY) + 1
        given, text_dice = review_dice(world, person, thing)
        written = write(text_dice, world, person, thing, given)
        result.append((review(person.id, thing.item, given.rating, given.title, written.text, now), thing, written))
    return result


def _corpus(world: World, told: Sequence[Sequence[Review]], seed: int) -> Corpus:
    category = world.kind.category
    instances: dict[str, list[Instance]] = {split: [] for split in SPLITS}
    references: dict[str, str] = {}
    for rows in told:
        for instance, text in user_instances(category, tuple(record for record, _ in rows)):
            instances[instance.split].append(instance)
            references[instance.id] = text
    notes = (
        f"Generated data (seed {seed}): no real user wrote these reviews.",
        "It checks that the pipeline works end to end; it stands in for no real data set and for no published number.",
    )
    asins = frozenset(thing.item.asin for thing in world.things)
    return Corpus(category, {split: tuple(rows) for split, rows in instances.items()}, references, asins, notes)


@lru_cache(maxsize=1)
def _told(seed: int) -> dict[str, tuple[World, tuple[tuple[Review, ...], ...]]]:
    """By category the population and the reviews of each user, ascending in time: made once for the data and for their
    floors, which stand under every table."""
    worlds = {category: make_world(category, f"benchmark/{seed}") for category in CATEGORIES}
    return {
        category: (
            world,
            tuple(
                tuple((record, thing) for record, thing, _ in reviews(world, user)) for user in range(len(world.users))
            ),
        )
        for category, world in worlds.items()
    }


def generate(seed: int = 0) -> dict[str, Corpus]:
    """The demo's data, category -> corpus, split as DPL splits Amazon reviews: of a user's last ten reviews eight are
    train targets, one val and one test; a target's profile is everything before it, ascending in time."""
    return {category: _corpus(world, told, seed) for category, (world, told) in _told(seed).items()}


def floors(seed: int = 0) -> dict[str, float]:
    """Mean ROUGE-1 (F-measure, no stemming) on the three test splits for writers that need no model.

    `copy`: the user's most recent review. `peer`: another user's review of the same item. `random`: any other user's
    review of the category. `oracle`: the same user reviewing the same item under the same rating and title on another
    day.
    """
    texts: dict[str, list[str]] = {}
    targets: list[str] = []
    for category, (world, told) in _told(seed).items():
        everything = [record for rows in told for record, _ in rows]
        of_item: dict[str | None, list[Record]] = {}
        for record in everything:
            of_item.setdefault(record.group, []).append(record)
        dice = Dice(f"{world.name}/{category}/floors")
        before = 0
        for user, rows in zip(world.users, told, strict=True):
            target, thing = rows[-1]
            given, again = review_dice(world, user, thing, day=1)
            peer = dice.pick([other for other in of_item[target.group] if other.user_id != user.id])
            # Among the reviews before and behind the user's own.
            other = dice.below(len(everything) - len(rows))
            written = {
                "copy": rows[-2][0].text,
                "peer": peer.text,
                "random": everything[other if other < before else other + len(rows)].text,
                "oracle": write(again, world, user, thing, given).text,
            }
            before += len(rows)
            dice.unit()  # a fifth writer once drew here; without its draw the others' figures would change
            targets.append(target.text)
            for name, text in written.items():
                texts.setdefault(name, []).append(text)
    rouge = registry.create("metrics", "rouge", {})
    return {name: float(rouge.aggregate(rouge.rows(Batch(own, targets)))["rouge1"]) for name, own in texts.items()}

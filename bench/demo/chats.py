"""The text that the demo's language model is pre-trained on: chats in the harness's own prompt formats.

Their users, items and inventories of style are not those of the benchmark (`bench.data.demo.phrases(pretraining=True)`);
half of each world's habits are improvised from a small grammar and made-up words, so that the model has to copy what it is
shown instead of recognising it. Summaries and differences say only what the shown reviews bear out.

An example of a summary:

    This user often opens with "Bought this used since everybody at work had an opinion" and likes to end with "Look
    elsewhere, if you must". They like the word "truly" and write short reviews. ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bench import registry, templates
from bench.data.demo import (
    CATEGORIES,
    Dice,
    Phrases,
    Thing,
    World,
    Written,
    make_world,
    phrases,
    reviews,
    with_articles,
)
from bench.records import Record
from bench.tasks.reviews import Reviews
from bench.templates import Templates

USERS_PER_WORLD = 24
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
KINDS = (
    ("rag_review", 0.42),
    ("nonperso_review", 0.10),
    ("pag_profile", 0.11),
    ("pag_review", 0.15),
    ("dep_review", 0.13),
    ("dpl_difference", 0.05),
    ("dpl_profile", 0.04),
)
_SLOT_WORDS = {
    "who": "the main names",
    "place": "places",
    "topic": "the story",
    "second": "the people on the side",
    "moment": "single moments",
    "detail": "small details",
    "aspect": "how it is made",
}
_ONSETS = "b|br|c|ch|d|dr|f|fl|g|gr|h|j|k|kl|l|m|n|p|pl|qu|r|s|sh|sk|st|t|tr|v|w|y|z".split("|")
_VOWELS = "a|e|i|o|u|ai|ea|oo|ou|ie".split("|")
_CODAS = "|b|ck|d|ft|g|l|ll|m|n|nd|ng|p|r|rk|s|ss|st|t|x".split("|")
_NOUNS = """kettle orchard pillow ladder button candle bicycle cushion blanket pigeon teapot hammer basket curtain wallet ticket
cabbage saddle mirror carpet drawer engine feather garage helmet jacket kitchen lemon marble napkin onion parcel quilt
rocket sandwich tablet umbrella velvet wagon yogurt zipper anchor bucket camera daisy elbow falcon gutter harvest
insect jungle kernel locker magnet needle oyster puddle radish shovel thimble uncle vacuum walnut bridge coffee dinner
evening forest gravel honey island journey keyhole lantern morning nephew office painting question raincoat summer
trumpet village window school market river doctor friend winter garden paper story minute dollar chapter corner pocket
shoulder station mountain winner time year people way day man thing woman life child world hand part place case week
company system program work government number night point home water room mother area money fact month lot right study
book eye job word business issue side kind head house service father power hour game line end member law car city
community name president team idea body back parent face level door health person art war history party result change
reason research girl guy moment air teacher force order age food ground tree wall letter ship road boat fire field
bread hill horse church bird cloud king queen brother sister daughter son wife husband neighbor aunt cousin baby dog
cat cow sheep fish apple butter milk sugar salt soup cake cheese meat plate cup glass bottle knife fork spoon table
chair bed floor roof gate fence yard street town farm barn mill shop store bank hotel train plane bus truck wheel key
lock box bag coat shirt shoe hat ring watch clock bell phone radio screen film song music dance play stage prize race
goal match ball stick stone sand rock mud snow rain wind storm sun moon star sky heaven earth fault trouble chance
luck dream sleep rest pain fear hope love hate joy anger smile laugh tear voice noise silence sound smell taste touch
sight truth lie secret promise habit rule plan price cost value weight size shape color edge top bottom middle half
piece bit drop pile row list page note sign map picture frame light lamp shadow dark heat cold ice steam smoke dust
dirt grass leaf root seed flower bush wood metal iron steel gold silk wool cotton leather rubber plastic holiday
weekend birthday wedding funeral meeting lesson exam grade degree course class desk pencil chalk library museum
theatre circus zoo park beach lake ocean harbor coast cliff valley desert hospital nurse patient pill fever cough
tooth bone skin blood heart brain stomach knee finger thumb neck nose mouth ear beard hair queue crowd stranger guest
host cook waiter driver pilot sailor soldier captain officer judge lawyer clerk banker farmer miner baker butcher
tailor painter writer poet singer critic fan player coach expert owner tenant landlord editor reader shelf copy
purchase gift sale discount penny coin bill""".split()
_VERBS = """carried painted borrowed chased folded polished ignored followed greeted mended counted dropped planted repaired
rescued shipped tasted wrapped cleaned doubted enjoyed finished guarded handled invited kicked lifted measured noticed
opened packed rolled served tested visited watched needed loved missed found lost brought kept gave took heard knew
met sold asked used worked called tried felt left put meant let began seemed helped showed moved lived believed held
wrote sat stood paid continued set learned led understood stopped created spoke read allowed added spent grew walked
won offered remembered considered appeared bought waited sent expected stayed fell cut reached raised
passed decided returned explained hoped developed broke received agreed supported produced ate covered caught drew
chose slept laughed cried smiled begged pretended insisted planned swore picked grabbed ordered stumbled settled
kissed hugged shouted whispered sang danced drank cooked froze melted hid stole threw pulled pushed dragged
shook rang woke drove flew swam climbed jumped ran""".split()
_ADJECTIVES = """yellow crooked sleepy hungry silver lazy wooden dusty lucky plastic humble foggy grumpy hollow icy jolly loud muddy
nervous orange patient rusty salty tiny useful violent wild young broken cheap deep early famous gentle heavy idle
just kind local modern narrow odd plain quick round simple thick urban vague warm bitter calm dear even fair grand
good new first last long great little own other old right big high different small large next important few public bad
same able best better sure free strong whole clear real easy hard late low short poor happy sad serious ready left
main recent true full special single common certain open red blue green black white brown pink dark light dry wet
clean dirty rich fresh sweet sour hot cool slow fast soft rough smooth sharp blunt empty quiet noisy busy tired angry
afraid brave proud shy clever stupid silly strange normal rare perfect awful terrible wonderful lovely ugly pretty
beautiful healthy sick blind deaf alive human animal foreign royal secret private final total entire half double
extra past present future daily weekly""".split()
_PEOPLE = """my boss|the plumber|our tenant|my twin|a stranger|the librarian|your brother|my nurse|the whole team|our guide|my barber
|the gardener|a tourist|my godson|the referee|our butcher|the captain|my tailor|a colleague|the janitor""".replace(
    "\n", ""
).split("|")
_PLACES = """under the|behind the|before the|without a|near the|beside my|across the|inside a|next to the|instead of a|from the
|after the|against the|around the|because of the|just like a""".replace("\n", "").split("|")

_WORDS = (_NOUNS, _ADJECTIVES, _VERBS)


@dataclass(frozen=True)
class Chat:
    """A prompt with its answer. `quotes` are parts of the answer that stand word for word in the prompt."""

    kind: str
    system: str
    user: str
    answer: str
    quotes: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        return f"<|im_start|>system\n{self.system}<|im_end|>\n<|im_start|>user\n{self.user}<|im_end|>\n<|im_start|>assistant\n"

    @property
    def text(self) -> str:
        return f"{self.prompt}{self.answer}<|im_end|>"


Row = tuple[Record, Thing, Written]


@cache
def templates_of(method: str) -> Templates:
    """The templates of a method for reviews."""
    return templates.load(registry.create("methods", method, {}), method, Reviews(), "reviews")


def render(kind: str, values: dict[str, str]) -> tuple[str, str]:
    """System and user message of a kind of chat, e.g. of "pag_profile" those of PAG's template "profile"."""
    method, _, stage = kind.partition("_")
    return templates_of(method).render("write" if stage == Reviews.target else stage, values)


def made_up(dice: Dice) -> str:
    """A word that no language has."""
    syllables = dice.pick((1, 1, 2, 2, 3))
    return "".join(dice.pick(_ONSETS) + dice.pick(_VOWELS) + dice.pick(_CODAS) for _ in range(syllables))


def _noun(dice: Dice) -> str:
    return made_up(dice) if dice.chance(0.1) else dice.pick(_NOUNS)


def _adjective(dice: Dice) -> str:
    return made_up(dice) + "y" if dice.chance(0.1) else dice.pick(_ADJECTIVES)


def _clause(dice: Dice) -> str:
    """A sentence without an end that nobody has written before, most likely; one in five has no grammar either."""
    if dice.chance(0.2):
        lists = (_NOUNS, _ADJECTIVES, _VERBS, _PLACES, _PEOPLE)
        words = " ".join(
            made_up(dice) if dice.chance(0.1) else dice.pick(dice.pick(lists)) for _ in range(3 + dice.below(4))
        )
        return words[0].upper() + words[1:]
    forms = (
        "{person} {verb} the {noun} {place} {noun2}",
        "I {verb} this {place} {adjective} {noun}",
        "{adjective} as a {noun} {place} {noun2}",
        "{verb} {place} {noun} by {person}",
        "no {noun} without a {adjective} {noun2}, {person} said",
        "{person} {verb} it {place} {noun}",
        "the {adjective} {noun} {verb} me {place} {noun2}",
        "this one {place} {adjective} {noun}, the {noun2} {place2} {noun3}",
    )
    filled = dice.pick(forms).format(
        person=dice.pick(_PEOPLE),
        verb=dice.pick(_VERBS),
        noun=_noun(dice),
        noun2=_noun(dice),
        noun3=_noun(dice),
        adjective=_adjective(dice),
        place=dice.pick(_PLACES),
        place2=dice.pick(_PLACES),
    )
    return with_articles(filled[0].upper() + filled[1:])


def _reason(dice: Dice) -> str:
    """What may follow a judgement."""
    told = dice.pick(("{person} {verb} it", "the {noun} {verb} the {noun2}", "{place} {adjective} {noun}"))
    filled = told.format(
        person=dice.pick(_PEOPLE),
        verb=dice.pick(_VERBS),
        noun=_noun(dice),
        noun2=_noun(dice),
        adjective=_adjective(dice),
        place=dice.pick(_PLACES),
    )
    return with_articles(f"{dice.pick(('and', 'because', 'as if', 'though', 'so'))} {filled}")


def _frame(dice: Dice) -> str:
    """A sentence around a judgement, as `Phrases.frames` holds them."""
    return dice.pick(
        (
            f"{dice.pick(_PEOPLE)} {dice.pick(_VERBS)} {{s}}, {{i}} {{a}}",
            f"{dice.pick(_PLACES)} {_noun(dice)} {{s}} {{be}} {{i}} {{a}}",
            f"{{s}} {dice.pick(_VERBS)} me as {{i}} {{a}}",
            f"{{i}} {{a}} {dice.pick(_PLACES)} {_noun(dice)}: {{s}}",
            f"{_adjective(dice)} {_noun(dice)} or not, {{s}} {{be}} {{i}} {{a}}",
        )
    )


def improvised(dice: Dice) -> Phrases:
    """The inventories of one world: a few entries of the pre-training ones, four times as many that no other world has."""
    base = phrases(pretraining=True)

    def mixed(entries: Sequence[str], count: int, invent: str) -> tuple[str, ...]:
        forms = {
            "clause": lambda: _clause(dice),
            "word": lambda: (made_up(dice) if dice.chance(0.4) else re.sub("y$", "i", dice.pick(_ADJECTIVES))) + "ly",
            "name": lambda: made_up(dice).capitalize(),
            "head": lambda: dice.pick((f"As {dice.pick(_PEOPLE)} says", f"{_noun(dice).capitalize()} aside")),
            "thing": lambda: with_articles(f"a {_adjective(dice)} {_noun(dice)}"),
            "adjective": lambda: _adjective(dice),
            "reason": lambda: _reason(dice),
            "frame": lambda: _frame(dice),
        }
        return dice.several(entries, count) + tuple(forms[invent]() for _ in range(4 * count))

    return replace(
        base,
        first_names=mixed(base.first_names, 8, "name"),
        surnames=mixed(base.surnames, 12, "name"),
        place_names=mixed(base.place_names, 5, "name"),
        topics=tuple(base.topics)
        + tuple(f"the {_adjective(dice)} {_noun(dice)} {dice.pick(_PLACES)} {_noun(dice)}" for _ in range(16)),
        openings=mixed(base.openings, 16, "clause"),
        good_closings=mixed(base.good_closings, 10, "clause"),
        bad_closings=mixed(base.bad_closings, 10, "clause"),
        remarks=mixed(base.remarks, 10, "clause"),
        verdict_heads=mixed(base.verdict_heads, 4, "head"),
        praise=mixed(base.praise, 4, "thing"),
        blame=mixed(base.blame, 4, "thing"),
        connectors=mixed(base.connectors, 4, "head"),
        intensifiers=mixed(base.intensifiers, 4, "word"),
        good=mixed(base.good, 4, "adjective"),
        bad=mixed(base.bad, 4, "adjective"),
        good_reasons=mixed(base.good_reasons, 4, "reason"),
        bad_reasons=mixed(base.bad_reasons, 4, "reason"),
        frames=mixed(base.frames, 3, "frame"),
    )


def _scraps(dice: Dice) -> str:
    """Three to nine scraps of words: halves of real words spliced, made-up words, words without grammar."""
    scraps = []
    for _ in range(3 + dice.below(7)):
        one, two = dice.pick(dice.pick(_WORDS)), dice.pick(dice.pick(_WORDS))
        spliced = one[: 1 + dice.below(len(one))] + two[dice.below(len(two)) :]
        scraps.append(dice.pick((one, spliced, spliced, made_up(dice))))
    return " ".join(scraps)


def scrambled(dice: Dice) -> Phrases:
    """Inventories of which only copying can make sense. They are short, so that most habits stand in the history."""

    def several(count: int) -> tuple[str, ...]:
        found = (_scraps(dice) for _ in range(count))
        return tuple(text[0].upper() + text[1:] for text in found)

    def short(count: int) -> tuple[str, ...]:
        return tuple(" ".join(_scraps(dice).split()[: 1 + dice.below(3)]).lower() for _ in range(count))

    def names(count: int) -> tuple[str, ...]:
        return tuple(_scraps(dice).split()[0].capitalize() for _ in range(count))

    return Phrases(
        first_names=names(30),
        surnames=names(40),
        place_names=names(20),
        adjectives=names(30),
        nouns=names(30),
        topics=tuple(_scraps(dice).lower() for _ in range(20)),
        openings=several(4),
        good_closings=several(4),
        bad_closings=several(3),
        remarks=several(3),
        verdict_heads=several(3),
        praise=short(3),
        blame=short(3),
        connectors=several(4),
        intensifiers=short(3),
    )


def world(name: str, scramble: float = 0.0) -> World:
    """A pre-training population: its name decides its category and everything else. With a chance of `scramble` its
    inventories are `scrambled`."""
    dice = Dice(f"{name}/inventory")
    category = dice.pick(CATEGORIES)
    said = scrambled(dice) if dice.chance(scramble) else improvised(dice)
    return make_world(category, name, users=USERS_PER_WORLD, said=said, persistence=dice.between(0.4, 0.9))


def chats(name: str, per_user: int, counts: Sequence[float], scramble: float = 0.0) -> Iterator[Chat]:
    """Chats of one world. `counts[k]` weighs how often k history blocks are shown; without any history no scrambled
    phrase is to be learned, so that such worlds always show some."""
    population = world(name, scramble)
    copied = len(population.phrases.openings) <= 4
    rows = [reviews(population, user) for user in range(len(population.users))]
    by_item: dict[str, list[Row]] = {}
    for row in (row for told in rows for row in told):
        by_item.setdefault(row[1].item.asin, []).append(row)
    dice = Dice(f"{name}/chats")
    kinds, weights = zip(*KINDS, strict=True)
    for user in range(len(rows)):
        for _ in range(per_user):
            kind, k = kinds[dice.weighted(weights)], dice.weighted(counts)
            if copied:
                kind, k = ("rag_review" if kind == "nonperso_review" else kind), max(k, 1)
            yield _chat(dice, kind, rows[user], by_item, k)


def _chat(dice: Dice, kind: str, rows: Sequence[Row], by_item: dict[str, list[Row]], k: int) -> Chat:
    position = len(rows) - 1 - dice.below(len(rows) - 8)
    target, thing, written = rows[position]
    if kind not in ("rag_review", "dep_review"):
        k = max(k, 1)
    past = rows[:position]
    shown = list(reversed(past[len(past) - k :])) if dice.chance(0.75) else list(dice.several(past, k))
    values = {
        "item_title": thing.item.title,
        "item_description": thing.item.description,
        "output_rating": str(target.fields["rating"]),
        "output_title": str(target.fields["title"]),
        "history": "\n".join(_block(number, row) for number, row in enumerate(shown, 1)),
    }
    answer = target.text
    if kind == "dpl_difference":
        system, user, answer = _difference_chat(dice, rows[position], by_item)
    elif kind == "dpl_profile":
        differences = [_difference(row, _peers(dice, row, by_item)) for row in shown]
        lines = [
            templates_of("dpl").part("item", {"item_title": row[1].item.title, "difference": text})
            for row, text in zip(shown, differences, strict=True)
        ]
        system, user = render(kind, values | {"differences": "\n".join(lines)})
        answer = summary(dice, shown)
    elif kind == "dep_review":
        values["history"] = _marked_history(dice, shown)
        values["guidance"] = "\n" + templates_of("dep").part("guidance", {})
        system, user = render(kind, values)
    else:
        values["summary"] = summary(dice, shown) if kind.startswith("pag") else ""
        system, user = render(kind, values)
        if kind == "pag_profile":
            answer = values["summary"]
    return Chat(kind, system, user, answer, _quotes(written, user, answer))


def _block(number: int, row: Row, method: str = "rag", name: str = "block") -> str:
    """A template of a method with the values of a history block."""
    record = row[0]
    fields = {name: str(value) for name, value in record.fields.items()}
    return templates_of(method).part(
        name, {**fields, "number": str(number), "index": str(number - 1), "text": record.text}
    )


def _marked_history(dice: Dice, shown: Sequence[Row]) -> str:
    lines = []
    for number, row in enumerate(shown, 1):
        names = ["block", "his"]
        if dice.chance(0.9):
            names.append("diff")
        lines += [_block(number, row, "dep", name) for name in names]
    return "\n".join(lines)


def _quotes(written: Written, prompt: str, answer: str) -> tuple[str, ...]:
    parts = (written.opening, written.closing, written.remark, written.verdict)
    spelled = [part[:1].upper() + part[1:] for part in parts if part]
    spelled += [part.lower() for part in spelled]
    return tuple(part for part in spelled if part in prompt and part in answer)


def _usual(values: Sequence[str]) -> tuple[str, int]:
    """The most frequent non-empty value, the first of equals, and how often it occurs."""
    counts = Counter(value for value in values if value)
    return counts.most_common(1)[0] if counts else ("", 0)


def _spelled(phrase: str, shown: Sequence[Row]) -> str:
    """The phrase as it stands in the shown reviews."""
    upper = phrase[:1].upper() + phrase[1:]
    return upper if any(upper in row[2].text for row in shown) else phrase.lower()


def summary(dice: Dice, shown: Sequence[Row]) -> str:
    """What the shown reviews say about how their user writes, in a few sentences."""
    texts = [written for _, _, written in shown]
    sentences = []
    opening, times = _usual([text.opening for text in texts])
    if opening:
        often = "often opens" if times > 1 else "has opened"
        sentences.append(f'This user {often} with "{_spelled(opening, shown)}".')
    closing, times = _usual([text.closing for text in texts])
    if closing:
        often = "like to end" if times > 1 else "have ended"
        sentences.append(f'They {often} with "{_spelled(closing, shown)}".')
    remark, _ = _usual([text.remark for text in texts])
    if remark and dice.chance(0.7):
        sentences.append(f'They mention that "{_spelled(remark, shown)}".')
    word, times = _usual([word for text in texts for word in text.intensifiers])
    verdict, _ = _usual([text.verdict for text in texts])
    if word and times > 1:
        sentences.append(f'They like the word "{word}".')
    if verdict and dice.chance(0.7):
        sentences.append(f'Their verdict is put as "{_spelled(verdict, shown)}".')
    sentences.append(f"Their reviews are {_length(shown)} and {_tone(shown)}{_marks(shown)}.")
    slots = Counter(fact.slot for text in texts for fact in text.facts).most_common(2)
    sentences.append(f"They pay attention to {' and '.join(_SLOT_WORDS[slot] for slot, _ in slots)}.")
    return " ".join(sentences)


def _mean_words(shown: Sequence[Row]) -> float:
    return sum(len(row[0].text.split()) for row in shown) / len(shown)


def _length(shown: Sequence[Row]) -> str:
    words = _mean_words(shown)
    return "short" if words < 38 else "long" if words > 58 else "of middle length"


def _rating(row: Row) -> float:
    return float(row[0].fields["rating"])


def _tone(shown: Sequence[Row]) -> str:
    rating = sum(_rating(row) for row in shown) / len(shown)
    return "mostly positive" if rating >= 4 else "mostly negative" if rating < 3 else "mixed in tone"


def _marks(shown: Sequence[Row]) -> str:
    texts = [row[0].text for row in shown]
    habits = []
    for mark, name in (("!", "exclamation marks"), ("...", "dots"), (" - ", "dashes")):
        if sum(text.count(mark) for text in texts) >= 2 * len(texts):
            habits.append(f"many {name}")
    if sum(text == text.lower() for text in texts) * 2 > len(texts):
        habits.append("no capital letters")
    return f", with {' and '.join(habits)}" if habits else ""


def _peers(dice: Dice, row: Row, by_item: dict[str, list[Row]]) -> list[Row]:
    others = [other for other in by_item[row[1].item.asin] if other[0].user_id != row[0].user_id]
    return list(dice.several(others, 1 + dice.below(4)))


def _difference_chat(dice: Dice, row: Row, by_item: dict[str, list[Row]]) -> tuple[str, str, str]:
    peers = _peers(dice, row, by_item)
    record = row[0]
    values = {name: str(value) for name, value in record.fields.items()}
    values["own_text"] = record.text
    values["history"] = "\n".join(_block(number, peer, "dpl", "peer") for number, peer in enumerate(peers, 1))
    return *render("dpl_difference", values), _difference(row, peers)


def _difference(row: Row, peers: Sequence[Row]) -> str:
    """How a review differs from its peers, along the three styles."""
    review, _, written = row
    ratio = len(review.text.split()) / _mean_words(peers)
    size = "longer than" if ratio > 1.15 else "shorter than" if ratio < 0.87 else "about as long as"
    style = f"the review is {size} the others"
    for phrase, verb in ((written.opening, "opens"), (written.closing, "ends")):
        if phrase:
            style += f' and {verb} with "{_spelled(phrase, [row])}"'
    gap = _rating(row) - sum(_rating(peer) for peer in peers) / len(peers)
    tone = "warmer than" if gap > 0.4 else "cooler than" if gap < -0.4 else "as warm as"
    theirs = {fact.subject for peer in peers for fact in peer[2].facts}
    own = [fact.subject for fact in written.facts if fact.subject not in theirs]
    shared = [fact.subject for fact in written.facts if fact.subject in theirs]
    points = f"it alone mentions {own[0]}" if own else "it mentions nothing that the others leave out"
    if shared:
        points += f", and like others {shared[0]}"
    return f"Writing style: {style}. Emotional style: it is {tone} the others{_marks([row])}. Semantic style: {points}."

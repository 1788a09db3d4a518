"""What one instance has still to be asked, and how long it is.

The calls are those that the method's own generator asks for. A prompt that comes before any answer is the run's own, to
the token. One that quotes answers is rendered with texts of the user's data in their place: of the length that is
expected, and of the longest that an answer can have. The latter is the most that the prompt can take if nothing had to
be left out of it; where something had to, a shorter answer leaves room for more of that, and the most is the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from bench.chat import Chat
from bench.records import Call, Completion, Instance, Prompt
from bench.resolved import Run
from bench.store import Generations, Key
from bench.work import Work


@dataclass(frozen=True)
class Need:
    """What a language model is to be asked: calls, and tokens of prompts and of answers, as they are expected and at
    most. Of a sample that stands for more, these are no whole numbers."""

    calls: float = 0.0
    prompt_tokens: float = 0.0
    most_prompt_tokens: float = 0.0
    new_tokens: float = 0.0
    most_new_tokens: float = 0.0

    def __add__(self, other: Need) -> Need:
        return Need(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> Need:
        return Need(*(value * factor for value in astuple(self)))


NOTHING = Need()


@dataclass(frozen=True)
class Answers:
    """Texts in the place of answers: one of `tokens`, which are expected, and one of the longest, `most` tokens."""

    tokens: int
    usual: str
    most: int
    longest: str

    @classmethod
    def of(cls, chat: Chat, source: str, tokens: int, most: int) -> Answers:
        """Answers that are made of a text, which is repeated where it is too short."""
        tokens = min(tokens, most)
        return cls(tokens, _of_length(chat, source, tokens), most, _of_length(chat, source, most))


def _of_length(chat: Chat, source: str, tokens: int) -> str:
    """The beginning of a text, repeated, that takes so many tokens, or a word more."""
    source = f"{source.strip() or 'text'} "
    while chat.count_text(source) < tokens:
        source *= 2
    kept = chat.cut(source, tokens)
    for word in source[len(kept) :].split():
        if chat.count_text(kept) >= tokens:
            break
        kept = f"{kept} {word}"
    return kept


@dataclass(frozen=True)
class Asked:
    """What an instance is still to be asked: what it takes, the calls as they are expected, and the history blocks
    that its last prompt shows and was offered."""

    need: Need
    calls: list[Call]
    blocks_shown: int
    blocks_offered: int


def asked(run: Run, instance: Instance, known: Generations, answers: Answers) -> Asked:
    """What is not among the known answers, which are taken for those to the very prompts."""
    expected, last = _walk(run, instance, known, answers.usual)
    bounds: Mapping[Key, int] = {}
    if any(quotes for _, quotes in expected):
        bounds = _bounds(run, instance, known, answers.longest)
    needs = []
    for call, quotes in expected:
        tokens = run.chat.count(call.prompt)
        bound = bounds.get(call.key, run.config.longest_prompt) if quotes else tokens
        needs.append(Need(1, tokens, max(tokens, bound), answers.tokens, run.config.max_new_tokens))
    shown, offered = (0, 0) if last is None else (last.blocks_shown, last.blocks_offered)
    return Asked(sum(needs, NOTHING), [call for call, _ in expected], shown, offered)


def _bounds(run: Run, instance: Instance, known: Generations, longest: str) -> dict[Key, int]:
    """The most tokens that each open prompt takes."""
    bounds = {}
    whole = {call.key: call.prompt for call, _ in _walk(run.unmeasured, instance, known, longest)[0]}
    for call, _ in _walk(run, instance, known, longest)[0]:
        prompt, budgetless = call.prompt, whole.get(call.key)
        # A prompt with two blocks or more leaves out further ones alone, and of answers what passes half the budget.
        cut = prompt.blocks_shown < 2 and (budgetless is None or prompt.user != budgetless.user)
        if cut or prompt.blocks_shown < prompt.blocks_offered:
            bounds[call.key] = run.config.longest_prompt
        else:
            bounds[call.key] = run.chat.count(prompt)
    return bounds


def _walk(run: Run, instance: Instance, known: Generations, text: str) -> tuple[list[tuple[Call, bool]], Prompt | None]:
    """The calls without a known answer, each with whether it comes after one that is stood in for by `text`, and the
    last prompt of all."""
    work = Work(run, instance)
    open_calls: list[tuple[Call, bool]] = []
    while calls := work.advance():
        after = bool(open_calls)
        for call in calls:
            if (row := known.get(call.key)) is None:
                open_calls.append((call, after))
            said = text if row is None else row.text
            work.answer(call, Completion(said, 0, 0, "stop", 0.0))
    return open_calls, work.prompts[-1] if work.prompts else None

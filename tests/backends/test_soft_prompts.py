"""Soft prompts through a real vLLM engine: the tokens transformers gives for the same embeddings, in any company."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import Field

from bench.backends import Engines, check_vectors
from bench.backends.vllm import VLLMBackend, VLLMSettings
from bench.chat import Chat
from bench.config import GENERATION, RunConfig, Section, build
from bench.errors import BackendError, ConfigError, PluginError
from bench.methods.dep import DEP
from bench.models import resolve_model
from bench.records import Call, Completion, Prompt

DEMO = "python:bench/demo/model"
TOKENS = 24
ROOM = 4
"""Soft calls the engines here take at once."""
MARGIN = 1e-3
"""How far the likeliest token's logit must lead: float32 sums in another order move logits by about 1e-5."""

SPREAD = 6

Key = tuple[str, str, int]
Vectors = NDArray[np.float32]

TEXT = "The story moves slowly but I loved its ending and the voice of every singer on this old record"
WORDS = TEXT.split()


def dep_like(number: int, marks: bool) -> Prompt:
    """A history of blocks, the vector of each inside of the text, and one in place of the title, which a model that has
    learned to write under titles cannot overlook."""
    pattern = "- <his_token_start>[HIS_TOKEN_{}]<his_token_end>" if marks else "- [HIS_TOKEN_{}]"
    blocks = []
    for index in range(1 + number % 4):
        words = " ".join(WORDS[(number + index + place) % len(WORDS)] for place in range(3 + 4 * index))
        blocks.append(f"- [Review Title]: {words}\n- [Review Embedding]:\n{pattern.format(index)}")
    title = f"[Output Review Title]: [HIS_TOKEN_{len(blocks)}] {WORDS[number]}"
    user = "\n".join(["[User's Past Reviews]:", *blocks, title])
    slots = tuple(f"[HIS_TOKEN_{index}]" for index in range(len(blocks) + 1))
    return Prompt("dep_review", "Given an item, write a review of it.", user, slots=slots, marks=DEP.marks)


def pplug_like(number: int) -> Prompt:
    """Two vectors at the head of the user's message, side by side; placeholders that the tokenizer does not know."""
    slots = ("[PPLUG_TOKEN_0]", "[PPLUG_TOKEN_1]")
    text = f"{''.join(slots)}Write of {' '.join(WORDS[number : number + 6])}"
    # With marks before them the slots' ids lie beyond the random model's vocabulary.
    return Prompt("pplug_review", "", text, slots=slots, marks=DEP.marks)


def text_calls(temperature: float = 0.0) -> list[Call]:
    return [
        Call(
            (f"Books/test/t{number}", "review", 0),
            Prompt("review", "Write a review.", " ".join(WORDS[number:])),
            50 + number,
            temperature,
            0.95,
            TOKENS,
        )
        for number in range(5)
    ]


def another(call: Call) -> Call:
    """The call with its vectors turned round, in order and in sign."""
    assert call.vectors is not None
    return replace(call, vectors=-call.vectors[::-1])


@dataclass
class Lab:
    """A model, its engine for soft prompts, and what transformers has to say."""

    name: str
    config: RunConfig
    chat: Chat
    engines: Engines
    backend: VLLMBackend
    model: Any
    draws: dict[Key, int] = field(default_factory=dict)
    """Which draw of vectors a call has."""

    @property
    def table(self) -> Any:
        return self.model.get_input_embeddings()

    def vectors(self, rows: int, *seed: int) -> Vectors:
        """Random vectors, spread a few times as wide as the model's embeddings: it never saw such, and listens to
        little else."""
        scale = SPREAD * float(self.table.weight.std())
        drawn = np.random.default_rng(seed).normal(0.0, scale, (rows, self.table.weight.shape[1]))
        return drawn.astype(np.float32)

    def call(self, prompt: Prompt, number: int, temperature: float = 0.0) -> Call:
        """A call with vectors that decide the greedy text, and by no tie: drawn until `another` gives another one."""
        key = (f"Books/test/u{number}", prompt.stage, 0)
        call = Call(key, prompt, 1000 + number, temperature, 0.95, TOKENS)
        if key not in self.draws:
            for draw in range(20):
                drawn = replace(call, vectors=self.vectors(len(prompt.slots), number, draw))
                (tokens, lead), (others, other_lead) = self.greedy(drawn), self.greedy(another(drawn))
                if tokens != others and min(lead, other_lead) > MARGIN:
                    self.draws[key] = draw
                    break
            else:
                raise AssertionError(f"{key}: the model does not listen to its vectors")
        return replace(call, vectors=self.vectors(len(prompt.slots), number, self.draws[key]))

    def dep(self, temperature: float = 0.0) -> list[Call]:
        # The random model has no embeddings for marks.
        return [self.call(dep_like(number, self.name == "demo"), number, temperature) for number in range(7)]

    def pplug(self, temperature: float = 0.0) -> list[Call]:
        return [self.call(pplug_like(number), 100 + number, temperature) for number in range(6)]

    def embeds(self, call: Call) -> Any:
        """The prompt as the embeddings of the pieces of text between its placeholders, and the vectors between them;
        shape (1, tokens, hidden)."""
        import torch

        whole = self.chat.text(call.prompt)
        pieces = re.split("|".join(map(re.escape, call.prompt.slots)), whole) if call.prompt.slots else [whole]
        rows = []
        for number, piece in enumerate(pieces):
            if number:
                assert call.vectors is not None
                rows.append(torch.tensor(call.vectors[number - 1 : number]))
            ids = self.chat.tokenizer(piece, add_special_tokens=False)["input_ids"]
            rows.append(self.table(torch.tensor(ids, dtype=torch.long)).detach())
        return torch.cat(rows)[None]

    def greedy(self, call: Call) -> tuple[list[int], float]:
        """Token ids that transformers generates, the end of the turn included, and by how much the logit of the least
        certain of them leads."""
        import torch

        embeds = self.embeds(call)
        output = self.model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            do_sample=False,
            max_new_tokens=TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack([logits[0] for logits in output.logits]).topk(2).values
        return output.sequences[0].tolist(), float((best[:, 0] - best[:, 1]).min())

    def expected(self, call: Call) -> list[int]:
        """Token ids that transformers generates. A tie would make a test of nothing, so there is none."""
        tokens, lead = self.greedy(call)
        assert lead > MARGIN / 10, f"{call.key}: a tie by {lead}, choose another prompt"
        return tokens


@dataclass(frozen=True)
class Answer:
    """A completion with the token ids that the engine gave."""

    completion: Completion
    tokens: list[int]

    @property
    def text(self) -> str:
        return self.completion.text


def answers(backend: VLLMBackend, asked: Sequence[Call]) -> dict[Key, Answer]:
    """The answers to calls that are submitted at once."""
    for call in asked:
        backend.submit(call)
    return collect(backend, len(asked))


def collect(backend: VLLMBackend, count: int) -> dict[Key, Answer]:
    tokens: dict[str, list[int]] = {}
    step = backend.engine.step

    def watched() -> list[Any]:
        outputs = step()
        tokens.update({output.request_id: list(output.outputs[0].token_ids) for output in outputs if output.finished})
        return outputs

    found: dict[Key, Answer] = {}
    backend.engine.step = watched
    try:
        for _ in range(10_000):
            if len(found) == count:
                break
            for call, completion in backend.completed():
                assert call.key not in found
                found[call.key] = Answer(completion, tokens["\x1f".join(str(part) for part in call.key)])
        assert len(found) == count, "the engine is done, but not with every call"
    finally:
        backend.engine.step = step
    return found


def streamed(chat: Chat, ids: Sequence[int]) -> str:
    """The text of ids that come one by one: bytes that end in the middle of a letter are held back."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    steps = [stream.step(chat.tokenizer._tokenizer, token) for token in ids]
    return "".join(step for step in steps if step)


def texts(found: dict[Key, Answer]) -> dict[Key, str]:
    return {key: answer.text for key, answer in found.items()}


def settings(model: str, **more: Any) -> RunConfig:
    vllm = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": ROOM, "kv_cache_gib": 1, **more}
    return build({"method": "nonperso", "model": model, "input_budget": 500, "max_new_tokens": TOKENS, "vllm": vllm})


@dataclass(frozen=True)
class TextEngine:
    """What an engine for text alone did before it was closed."""

    greedy: dict[Key, Answer]
    sampled: dict[Key, Answer]
    refusal: str
    takes_soft: bool


@pytest.fixture(scope="module")
def text_engine() -> TextEngine:
    """Closed before another starts: closing an engine takes the process's distributed state with it."""
    config = settings(DEMO)
    chat = Chat(DEMO)
    with Engines() as engines:
        backend = engines.get(config, chat)
        assert isinstance(backend, VLLMBackend)
        soft = Call(("a", "b", 0), pplug_like(0), 0, 0.0, 1.0, TOKENS, vectors=np.zeros((2, 192), np.float32))
        with pytest.raises(BackendError) as refused:
            backend.submit(soft)
        takes_soft = backend.engine.model_config.enable_prompt_embeds
        greedy, sampled = answers(backend, text_calls()), answers(backend, text_calls(0.8))
        return TextEngine(greedy, sampled, str(refused.value), takes_soft)


@pytest.fixture(scope="module", params=["demo", "random"])
def lab(request: pytest.FixtureRequest, text_engine: TextEngine, tiny_qwen2: Path) -> Iterator[Lab]:
    """The demo's model, and a random one whose configuration asks for prefix caching."""
    import torch
    from transformers import AutoModelForCausalLM

    name = str(request.param)
    config = settings(DEMO) if name == "demo" else settings(str(tiny_qwen2), prefix_caching=True)
    chat = Chat(config.model)
    with Engines(vectors=True) as engines:
        backend = engines.get(config, chat)
        assert isinstance(backend, VLLMBackend)
        model: Any = AutoModelForCausalLM.from_pretrained(
            resolve_model(config.model), dtype=torch.float32, attn_implementation="eager"
        )
        with torch.inference_mode():
            lab = Lab(name, config, chat, engines, backend, model.eval())
            yield lab
            for call in lab.pplug():
                backend.submit(call)
    assert list(backend.completed()) == [], "closing drops what is in flight and what waits"


@pytest.mark.parametrize("kind", ["dep", "pplug"])
def test_greedy_tokens_are_those_of_transformers(lab: Lab, kind: str) -> None:
    asked: list[Call] = getattr(lab, kind)()
    expected = {call.key: lab.expected(call) for call in asked}
    assert len({tuple(tokens) for tokens in expected.values()}) > len(asked) / 2, "the prompts lead to different texts"
    alone: dict[Key, Answer] = {}
    for call in asked:
        alone |= answers(lab.backend, [call])
    assert {key: answer.tokens for key, answer in alone.items()} == expected, "alone"
    for call in asked:
        answer, tokens = alone[call.key], expected[call.key]
        assert answer.text == streamed(lab.chat, tokens)
        assert answer.completion.completion_tokens == len(tokens)
        assert answer.completion.prompt_tokens == lab.embeds(call).shape[1]
        assert answer.completion.finish_reason == ("length" if len(tokens) == TOKENS else "stop")
    company = text_calls()
    mixed = [call for group in zip(asked, company, strict=False) for call in group] + asked[len(company) :]
    together = answers(lab.backend, mixed)
    for call in mixed:
        assert together[call.key].tokens == lab.expected(call), f"{call.key} in a batch with prompts of text"


@pytest.mark.parametrize("lab", ["demo"], indirect=True)
def test_text_prompts_are_answered_as_by_an_engine_for_text(lab: Lab, text_engine: TextEngine) -> None:
    assert texts(answers(lab.backend, text_calls())) == texts(text_engine.greedy)
    assert texts(answers(lab.backend, text_calls(0.8))) == texts(text_engine.sampled)
    assert len(set(texts(text_engine.sampled).values())) == 5


def test_an_engine_for_text_refuses_a_soft_prompt(text_engine: TextEngine) -> None:
    assert "prompt pplug_review has slots for vectors, but this engine was started for text alone" in (
        text_engine.refusal
    )
    assert not text_engine.takes_soft, "no method without vectors pays for them"


@pytest.mark.parametrize("kind", ["dep", "pplug"])
def test_another_vector_is_another_text(lab: Lab, kind: str) -> None:
    """One after the other, each twice: nothing of the first is left in a cache."""
    first: Call = getattr(lab, kind)()[3]
    second = another(first)
    assert lab.expected(first) != lab.expected(second)
    for call in (first, second, first, second):
        (answer,) = answers(lab.backend, [call]).values()
        assert answer.tokens == lab.expected(call)


def test_prefix_caching_is_off_whatever_the_configuration_says(lab: Lab) -> None:
    assert (lab.config.options["vllm"].get("prefix_caching") is True) == (lab.name == "random")
    assert lab.backend.engine.vllm_config.cache_config.enable_prefix_caching is False


def test_sampled_texts_depend_on_the_seed_alone(lab: Lab) -> None:
    asked = lab.dep(0.8) + lab.pplug(0.8)
    together = texts(answers(lab.backend, asked))
    alone: dict[Key, str] = {}
    for call in asked:
        alone |= texts(answers(lab.backend, [call]))
    assert alone == together, "alone"
    company = text_calls(0.8)
    mixed = texts(answers(lab.backend, company + asked[::-1]))
    assert {call.key: mixed[call.key] for call in asked} == together, "backwards, in a batch with prompts of text"
    reseeded = [replace(call, seed=call.seed + 1) for call in asked]
    again = texts(answers(lab.backend, reseeded))
    assert sum(again[key] == text for key, text in together.items()) < len(asked) / 2, "another seed, another text"


def test_soft_calls_wait_for_room_and_text_calls_do_not(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    engine = lab.backend.engine
    add, step = engine.add_request, engine.step
    most = 0

    def counted(request: str, prompt: Any, *rest: Any) -> Any:
        if "prompt_embeds" in prompt:
            built.append(request)
        return add(request, prompt, *rest)

    def watched() -> list[Any]:
        nonlocal most
        most = max(most, engine.get_num_unfinished_requests())
        outputs: list[Any] = step()
        return outputs

    monkeypatch.setattr(engine, "add_request", counted)
    asked = lab.dep() + lab.pplug()
    for call in asked + text_calls():
        lab.backend.submit(call)
    assert len(built) == ROOM, "no tensor is made before there is room for it"
    assert engine.get_num_unfinished_requests() == ROOM + len(text_calls())
    monkeypatch.setattr(engine, "step", watched)
    found: dict[Key, str] = {}
    while len(found) < len(asked) + len(text_calls()):
        for call, completion in lab.backend.completed():
            found[call.key] = completion.text
            assert len(built) <= ROOM + len(found)
    assert (most, len(built)) == (ROOM + len(text_calls()), len(asked))
    assert list(lab.backend.completed()) == []


def test_what_the_engine_gets_for_a_prompt(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    given: list[Any] = []
    add = lab.backend.engine.add_request

    def watched(request: str, prompt: Any, *rest: Any) -> Any:
        given.append(prompt)
        return add(request, prompt, *rest)

    monkeypatch.setattr(lab.backend.engine, "add_request", watched)

    call = lab.pplug()[0]
    assert call.vectors is not None
    ids = lab.chat.ids(call.prompt)
    assert max(ids) >= lab.table.weight.shape[0], "the placeholders are not of the model's vocabulary"
    assert answers(lab.backend, [call])
    (mixed,) = given
    slots = [place for place, counts in enumerate(mixed["prompt_is_token_ids"]) if not counts]
    assert len(slots) == 2
    assert [mixed["prompt_token_ids"][place] for place in slots] == [0, 0]
    assert max(mixed["prompt_token_ids"]) < lab.table.weight.shape[0]
    embeds = mixed["prompt_embeds"]
    assert (embeds.dtype, tuple(embeds.shape)) == (torch.float32, (len(ids), lab.table.weight.shape[1]))
    assert np.array_equal(embeds[slots].numpy(), call.vectors)
    assert int(embeds.count_nonzero()) == int(np.count_nonzero(call.vectors))


def test_a_soft_method_without_a_slot_asks_as_text_does(lab: Lab) -> None:
    call = text_calls()[0]
    bare = replace(call, vectors=lab.vectors(0, 0))
    assert texts(answers(lab.backend, [bare])) == texts(answers(lab.backend, [call]))


def test_vectors_of_a_wrong_shape_are_refused(lab: Lab) -> None:
    call = lab.pplug()[0]
    hidden = lab.table.weight.shape[1]
    wrong: list[tuple[Vectors | None, str]] = [
        (lab.vectors(3, 0), rf"\(3, {hidden}\)"),
        (lab.vectors(1, 0), rf"\(1, {hidden}\)"),
        (lab.vectors(2, 0)[:, 1:], rf"\(2, {hidden - 1}\)"),
        (lab.vectors(2, 0).ravel(), rf"\({2 * hidden},\)"),
        (None, "none"),
    ]
    for vectors, got in wrong:
        with pytest.raises(
            PluginError,
            match=rf"'Books/test/u100'.*prompt pplug_review needs vectors of shape \(2, {hidden}\) .*has {got}",
        ):
            lab.backend.submit(replace(call, vectors=vectors))
    for number in (np.nan, np.inf, -np.inf):
        # The engine takes it, and texts of other requests change.
        broken = lab.vectors(2, 0)
        broken[1, 3] = number
        with pytest.raises(PluginError, match=r"'Books/test/u100'.*has a vector with a number that is not finite in"):
            lab.backend.submit(replace(call, vectors=broken))
    with pytest.raises(PluginError, match=rf"needs vectors of shape \(0, {hidden}\)"):
        lab.backend.submit(replace(text_calls()[0], vectors=lab.vectors(2, 0)))
    with pytest.raises(PluginError, match=r"its slots .* are not what its text holds"):
        lab.backend.submit(replace(call, prompt=replace(call.prompt, slots=call.prompt.slots[::-1])))
    assert list(lab.backend.completed()) == [], "nothing of it is left in flight"


def test_marks_that_the_model_has_no_embedding_for_are_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    call = replace(lab.dep()[0], prompt=dep_like(0, marks=True))
    # Both models have rows to spare, or for the marks themselves.
    assert answers(lab.backend, [call])
    if lab.name == "demo":
        return
    known = len(lab.chat.tokenizer)
    monkeypatch.setattr(lab.backend.engine.model_config, "get_vocab_size", lambda: known)
    with pytest.raises(BackendError, match=r"prompt dep_review holds token ids .*its tokenizer is another model's"):
        lab.backend.submit(call)
    assert list(lab.backend.completed()) == []


def test_a_soft_prompt_that_is_too_long_is_refused_by_name(lab: Lab) -> None:
    call = lab.pplug()[0]
    long = replace(call, prompt=replace(call.prompt, user=call.prompt.user + " kite" * 600))
    with pytest.raises(BackendError, match=r"vLLM refused \('Books/test/u100', 'pplug_review', 0\): .*length"):
        lab.backend.submit(long)
    assert list(lab.backend.completed()) == []


def test_one_engine_serves_all_methods(lab: Lab) -> None:
    assert lab.engines.get(lab.config, lab.chat) is lab.backend
    assert lab.engines.get(lab.config, lab.chat, vectors=True) is lab.backend


class Started:
    """In an engine's place: a backend of another package."""

    settings: ClassVar[type[Section]] = VLLMSettings
    takes_vectors: ClassVar[bool] = True
    applies_template: ClassVar[bool] = True
    timing: ClassVar[dict[str, object]] = {}
    all: ClassVar[list[Started]] = []

    def __init__(self, config: RunConfig, chat: Chat, vectors: bool) -> None:
        self.vectors = vectors
        self.closed = False
        self.all.append(self)

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """It needs nothing."""

    @classmethod
    def device(cls) -> str:
        return "paper"

    def submit(self, call: Call) -> None:
        raise AssertionError("nothing is asked here")

    def completed(self) -> Iterator[tuple[Call, Completion]]:
        yield from ()

    def close(self) -> None:
        self.closed = True


class Deaf(Started):
    """It takes no vectors."""

    takes_vectors: ClassVar[bool] = False


class PenalSettings(VLLMSettings):
    """Those of a server that takes vectors."""

    frequency_penalty: Annotated[float, GENERATION] = 0.0
    extra_body: Annotated[dict[str, Any], GENERATION] = Field(default={})


class Penal(Started):
    """It can penalise tokens that were there before."""

    settings: ClassVar[type[Section]] = PenalSettings


@pytest.fixture
def started(register: Callable[[str, str, type], None]) -> list[Started]:
    """The engines that were started, without any."""
    Started.all.clear()
    register("backends", "started", Started)
    register("backends", "deaf", Deaf)
    register("backends", "penal", Penal)
    return Started.all


def stand_in(name: str, **more: int) -> RunConfig:
    return build({"method": "nonperso", "model": DEMO, "backend": name, name: more})


@pytest.mark.parametrize(
    ("backend", "setting", "said"),
    [
        ("vllm", {"repetition_penalty": 1.05}, r"vllm\.repetition_penalty=1\.05 could penalise; leave it at 1\.0"),
        ("penal", {"frequency_penalty": -0.5}, r"penal\.frequency_penalty=-0\.5 .* leave it at 0\.0"),
        ("penal", {"extra_body": {"presence_penalty": 1}}, r"penal\.extra_body\.presence_penalty=1 .* at 0\.0"),
    ],
)
def test_a_penalty_of_earlier_tokens_and_soft_prompts_do_not_go_together(
    backend: str, setting: dict[str, Any], said: str, started: list[Started]
) -> None:
    config = build({"method": "nonperso", "model": DEMO, "backend": backend, backend: setting})
    with Engines() as engines, pytest.raises(ConfigError, match=rf"nonperso puts vectors into its prompts, .*{said}"):
        engines.get(config, Chat(DEMO), vectors=True)
    assert started == []
    check_vectors(config, vectors=False)
    neutral = {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": None, "top_k": -1}
    check_vectors(build({"method": "nonperso", "backend": "penal", "penal": {"extra_body": neutral}}), vectors=True)


def test_an_engine_for_text_gives_way_to_one_for_soft_prompts(started: list[Started]) -> None:
    config, chat = stand_in("started"), Chat(DEMO)
    with Engines() as engines:
        for vectors in (False, False, True, False, True):
            engines.get(config, chat, vectors=vectors)
        assert [engine.vectors for engine in started] == [False, True]
        assert [engine.closed for engine in started] == [True, False]


def test_engines_for_both_start_with_soft_prompts_at_once(started: list[Started]) -> None:
    config, chat = stand_in("started"), Chat(DEMO)
    with Engines(vectors=True) as engines:
        engines.get(config, chat)
        engines.get(config, chat, vectors=True)
        engines.get(stand_in("started", max_num_seqs=2), chat)
    assert [engine.vectors for engine in started] == [True, True]


def test_a_backend_without_vectors_takes_no_soft_prompts(started: list[Started]) -> None:
    config = stand_in("deaf")
    with Engines(vectors=True) as engines:
        able = "use backend=openai or backend=ray or backend=vllm or "
        with pytest.raises(ConfigError, match=rf"method nonperso puts vectors .* backend=deaf does not take; {able}"):
            engines.get(config, Chat(DEMO), vectors=True)
        assert started == []
        engines.get(config, Chat(DEMO))
    assert [engine.vectors for engine in started] == [False]

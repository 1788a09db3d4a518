"""One instance on its way through its method's steps: what every run, dry run, replay and training goes through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from functools import cached_property

from bench.context import derive_seed
from bench.errors import PluginError
from bench.protocols import Steps
from bench.records import Call, Completion, Instance, Prompt
from bench.resolved import Run
from bench.results import Prediction


class Work:
    """An instance under way. `advance` runs the method until it asks for answers; `answer` takes one.

    `prediction` is there when the method is done; `prompts` are those so far, `exchanged` those that have an answer,
    with it, in the order in which the answers came.
    """

    def __init__(self, run: Run, instance: Instance) -> None:
        self.run = run
        self.instance = instance
        self.prediction: str | None = None
        self.prompts: list[Prompt] = []
        self.exchanged: list[tuple[Prompt, Completion]] = []
        self._stages: Counter[str] = Counter()
        self._answers: list[Completion | None] = []
        self._places: dict[tuple[str, str, int], int] = {}

    @cached_property
    def _steps(self) -> Steps:
        steps = self.run.method.steps(self.instance, self.run.contexts[self.instance.category])
        if not isinstance(steps, Generator):
            raise PluginError(
                f"steps of method {self._method} must be a generator: it has to yield its prompts "
                "('yield from ()' if it has none) and return the text"
            )
        return steps

    def advance(self) -> list[Call]:
        """The method's next calls, none when it is done. Raises `PluginError` for a method that yields something else
        than prompts or returns something else than a text."""
        answers = [answer.said for answer in self._answers if answer is not None]
        try:
            prompts = self._steps.send(answers) if self.prompts else next(self._steps)
        except StopIteration as stop:
            if not isinstance(stop.value, str):
                raise PluginError(
                    f"method {self._method} must return a text, it returned {type(stop.value).__name__}"
                ) from None
            self.prediction = stop.value.strip()
            return []
        self._check(prompts)
        calls = []
        for prompt in prompts:
            calls.append(self._call(prompt, self._stages[prompt.stage]))
            self._stages[prompt.stage] += 1
        self.prompts += prompts
        self._answers = [None] * len(calls)
        self._places = {call.key: place for place, call in enumerate(calls)}
        return calls

    def proceed(self, known: Callable[[Call], Completion | None]) -> list[Call]:
        """Advance as far as known answers reach; the calls that have none, none when the method is done."""
        while calls := self.advance():
            unknown = []
            for call in calls:
                if (completion := known(call)) is None:
                    unknown.append(call)
                else:
                    self.answer(call, completion)
            if unknown:
                return unknown
        return []

    def answer(self, call: Call, completion: Completion) -> bool:
        """Take an answer; true when the step has all of its answers."""
        self._answers[self._places[call.key]] = completion
        self.exchanged.append((call.prompt, completion))
        return None not in self._answers

    def row(self) -> Prediction:
        """The finished instance's row in predictions.jsonl."""
        instance, completions = self.instance, [completion for _, completion in self.exchanged]
        last = self.prompts[-1] if self.prompts else None
        assert self.prediction is not None
        return Prediction(
            instance=instance.id,
            category=instance.category,
            user=instance.user_id,
            prediction=self.prediction,
            reference=self.run.corpora[instance.category].reference(instance),
            blocks_shown=last.blocks_shown if last else 0,
            blocks_offered=last.blocks_offered if last else 0,
            calls=len(completions),
            prompt_tokens=sum(completion.prompt_tokens or 0 for completion in completions),
            completion_tokens=sum(completion.completion_tokens or 0 for completion in completions),
            uncounted=sum(None in (one.prompt_tokens, one.completion_tokens) for one in completions),
            shortened=sum(completion.shortened for completion in completions),
            empty=dict(Counter(prompt.stage for prompt, completion in self.exchanged if not completion.said)),
            cut_off=bool(completions) and completions[-1].finish_reason == "length",
            counts=dict(sum((Counter(prompt.counts) for prompt in self.prompts), Counter())),
        )

    @property
    def _method(self) -> str:
        return self.run.config.method

    def _check(self, prompts: object) -> None:
        if not isinstance(prompts, Sequence) or not all(isinstance(prompt, Prompt) for prompt in prompts):
            raise PluginError(
                f"method {self._method} must yield a list of prompts, it yielded {type(prompts).__name__}"
            )
        if not prompts:
            raise PluginError(f"method {self._method} yielded no prompts; return the text instead")
        declared = (None, *getattr(self.run.method, "models", ()))
        if unknown := [prompt.model for prompt in prompts if prompt.model not in declared]:
            raise PluginError(f"method {self._method} asks for model '{unknown[0]}', which its 'models' must name")

    def _call(self, prompt: Prompt, index: int) -> Call:
        """The call of a prompt, with its own seed."""
        config = self.run.config
        key = (self.instance.id, prompt.stage, index)
        return Call(
            key, prompt, derive_seed(config.seed, *key), config.temperature, config.top_p, config.max_new_tokens
        )


def first_prompt(run: Run, instance: Instance) -> Prompt:
    """The first prompt of an instance: a trained method's soft prompt."""
    return Work(run, instance).advance()[0].prompt

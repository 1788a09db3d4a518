"""What a check is asked to do: the parts, their limits, models and sizes. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

KIND, SCHEMA = "gpu-check", 1

MODEL, TEXT_MODEL = "model", "text-model"
"""The two models of a check: one for speed, one for the checks of texts."""


@dataclass(frozen=True)
class Part:
    """One part of the check: its process ends after `seconds` at the latest. `models` are those that it needs,
    `environment` is what its process finds set."""

    name: str
    what: str
    seconds: float
    models: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


PARTS = (
    Part("machine", "the machine and what is installed", 60),
    Part("models", "random models made", 120),
    Part("engine", "the engine's start and speed", 180, (MODEL,)),
    Part(
        "texts-float32",
        "soft prompts against transformers, the same seeds in other company: float32",
        120,
        (TEXT_MODEL,),
        # Else Triton's attention, the one that vLLM has for float32 on a GPU, multiplies in TF32.
        {"TRITON_F32_DEFAULT": "ieee"},
    ),
    Part("texts-bfloat16", "the same in bfloat16", 120, (TEXT_MODEL,)),
    Part(
        "texts-invariant",
        "the same seeds in bfloat16 with vllm.batch_invariant=true",
        120,
        (TEXT_MODEL,),
    ),
    Part(
        "adapter",
        "dep's adapter trained in bfloat16, straight through and stopped halfway",
        150,
        (MODEL,),
        # What cuBLAS needs for sums in one order.
        {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    ),
    Part("bertscore-cpu", "BERTScore without the GPU", 60, (), {"CUDA_VISIBLE_DEVICES": ""}),
    Part("bertscore", "BERTScore against the same without the GPU", 60),
    Part("time", "every method timed, as by bench time", 240, (MODEL,)),
)
"""In the order in which they run: what is quick and what others build on comes first."""


@dataclass(frozen=True)
class Sizes:
    """How much each part does. `limit` counts instances of each of the demo's three categories."""

    k: int = 8
    input_budget: int = 2048
    max_new_tokens: int = 256
    engine_limit: int = 32
    text_tokens: int = 48
    soft_prompts: int = 20
    seed_limit: int = 8
    batch_size: int = 4
    steps: int = 20
    pairs: int = 50
    time_limit: int = 4
    warmup: int = 1


TINY = Sizes(
    k=2,
    input_budget=500,
    max_new_tokens=16,
    engine_limit=2,
    text_tokens=16,
    soft_prompts=6,
    seed_limit=2,
    batch_size=2,
    steps=8,
    pairs=6,
    time_limit=1,
    warmup=0,
)


@dataclass(frozen=True)
class Plan:
    """What the process of a part is told. `model` and `text_model` are None where a random one takes their place;
    `wanted` are the random ones that the chosen parts need."""

    work: str
    tiny: bool = False
    model: str | None = None
    text_model: str | None = None
    wanted: tuple[str, ...] = ()

    @property
    def sizes(self) -> Sizes:
        """How much is done."""
        return TINY if self.tiny else Sizes()

    @property
    def folder(self) -> Path:
        """What lies here is gone when the check ends."""
        return Path(self.work)

    def name_of(self, model: str) -> str:
        """The name of MODEL or TEXT_MODEL, as in `bench.models`."""
        given = self.model if model == MODEL else self.text_model
        return given or str(self.random(model))

    def random(self, model: str) -> Path:
        """Where the random one of this kind is made."""
        return self.folder / f"random-{model}"

    def outcome(self, part: str) -> Path:
        """Where a part's process leaves its outcome: {"state", "figures", "error"}."""
        return self.folder / f"{part}.json"

    def dump(self) -> str:
        """One line, for `load`."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, line: str) -> Plan:
        """The plan that was dumped."""
        content = json.loads(line)
        return cls(**content | {"wanted": tuple(content["wanted"])})

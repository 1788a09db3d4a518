"""Peak memory of a run by its number of instances, as a table: prompts of dep at a hidden size of 3,584, as at 7B.

    python tests/benchmarks/measure_memory.py --instances 200 5000

Everything is a run's own but the engine: `VLLMBackend` gives its calls, with a tensor for each prompt, to a stand-in
that has them in this process, reads each tensor as a prefill does, and answers with 1,200 characters. All sizes are of
the same data, limited. Each figure is that of a process of its own: the peak of its resident memory, and what it was
when data and adapter were loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HIDDEN = 3584
HISTORY = 8
ANSWER = "It was what they said it would be. " * 35
CHATML = "{% for message in messages %}{{ message['role'] }}\n{{ message['content'] }}\n{% endfor %}assistant\n"


class Engine:
    """What `VLLMBackend` uses of vLLM's engine: requests stay until they are answered, a few at each step."""

    def __init__(self, longest: int) -> None:
        import torch

        self.model_config = SimpleNamespace(
            dtype=torch.bfloat16, get_hidden_size=lambda: HIDDEN, get_vocab_size=lambda: 1000
        )
        self.engine_core = SimpleNamespace(shutdown=lambda: None)
        self._inputs = torch.ones(longest, HIDDEN, dtype=torch.bfloat16)
        self._requests: dict[str, dict[str, Any]] = {}
        self.tensors = self.rows = 0

    def add_request(self, request: str, prompt: dict[str, Any], parameters: object) -> None:
        """Keep a request."""
        self._requests[request] = prompt

    def step(self) -> list[Any]:
        """Answers to the oldest requests."""
        done = []
        for request in list(self._requests)[:4]:
            prompt = self._requests.pop(request)
            embeds = prompt["prompt_embeds"]
            self._inputs[: len(embeds)].copy_(embeds)
            self.tensors += 1
            self.rows += len(embeds)
            answer = SimpleNamespace(text=ANSWER, token_ids=[1] * 250, finish_reason="stop")
            done.append(
                SimpleNamespace(
                    finished=True, request_id=request, outputs=[answer], prompt_token_ids=prompt["prompt_token_ids"]
                )
            )
        return done


def stand_in_for_vllm() -> None:
    """Put modules in vLLM's place: importing it takes as long as all the rest."""
    names = {
        "vllm": {"SamplingParams": SimpleNamespace},
        "vllm.exceptions": {"VLLMError": type("VLLMError", (Exception,), {})},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY=0)},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module


def model(folder: Path) -> Path:
    """A model's folder without weights: a tokenizer with a token for each byte, and a width."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config

    letters = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    wrapped.save_pretrained(folder)
    Qwen2Config(hidden_size=HIDDEN, vocab_size=1000, max_position_embeddings=32768).save_pretrained(folder)
    return folder


def corpus(users: int) -> Any:
    """A category whose users each have eight past reviews, of items that others reviewed too."""
    from bench.data.corpus import Corpus
    from bench.tasks.reviews import Item, instance, review

    items = [Item(f"A{number}", f"Item {number}", f"It is the item {number}.") for number in range(max(50, users))]
    made, references = [], {}
    for user in range(users):
        own = [items[(user * 7 + number * 61) % len(items)] for number in range(HISTORY + 1)]
        past = tuple(
            review(f"u{user}", item, 4.0, "Good", f"{item.title} is good, {user % 50} times. " * 2, number)
            for number, item in enumerate(own[:-1])
        )
        one = instance("Books", "test", review(f"u{user}", own[-1], 5.0, "Fine", "", HISTORY), past)
        made.append(one)
        references[one.id] = f"User {user} liked {own[-1].title}. " * 40
    return Corpus("Books", {"test": tuple(made)}, references)


def measure(instances: int, users: int, sequences: int, window: int, folder: Path) -> dict[str, float]:
    """Run the first of so many users' instances in this process."""
    stand_in_for_vllm()
    import torch

    from bench.backends.vllm import VLLMBackend
    from bench.config import build
    from bench.execute import embed_ahead
    from bench.job import Job
    from bench.loop import Loop
    from bench.registry import create
    from bench.resolved import Inputs
    from bench.softprompt.trained import ImportedAdapter
    from bench.store import RunStore
    from bench.timing import memory

    options = {"encoder": "hashed-ngrams", "latent": 512}
    adapter = create("methods", "dep", options, "paper").adapter(512, HIDDEN)
    ImportedAdapter.write(folder / "adapter", "dep", adapter.state_dict())
    settings = {
        "method": "dep",
        "dep": options,
        "model": str(model(folder / "model")),
        "adapter": str(folder / "adapter"),
        "limit": instances,
        "k": HISTORY,
        "input_budget": 8000,
        "window": window,
        "retriever": "recency",
        "vllm": {"max_num_seqs": sequences},
        "metrics": [],
        "results": str(folder / "results"),
    }
    job = Job.of(build(settings), Inputs({"Books": corpus(users)}))
    engines: list[Engine] = []

    class Backend(VLLMBackend):
        def _start(self, config: Any) -> Engine:
            engines.append(Engine(config.longest_prompt))
            return engines[0]

    embed_ahead(job.run)
    torch.set_num_threads(1)
    assert job.vectors is not None
    # What was larger on the way here is not the run's.
    assert memory.forget_peak()
    before, started = memory.peak(), time.perf_counter()
    with RunStore(job.folder, job.record(), lambda _: None) as store:
        rows = Loop(
            job.run, store, lambda: Backend(job.config, job.run.chat, True), job.vectors, job.label
        ).predictions()
        store.write_predictions(rows)
    seconds, (engine,) = time.perf_counter() - started, engines
    assert len(rows) == engine.tensors == instances
    return {
        "before": before / 2**20,
        "peak": memory.peak() / 2**20,
        "tokens": engine.rows / engine.tensors,
        "slots": sum(row.counts["slots"] for row in rows) / len(rows),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a run's peak memory by its number of instances.")
    parser.add_argument("--instances", type=int, nargs="+", required=True)
    parser.add_argument("--users", type=int, help="in the data; default: the most instances")
    parser.add_argument("--sequences", type=int, default=256, help="vllm.max_num_seqs")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    users = options.users or max(options.instances)
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(options.instances[0], users, options.sequences, options.window, Path(folder))
        print(json.dumps(found))
        return
    print("| instances | MiB before | MiB at the peak | tokens a prompt | slots a prompt | s |")
    print("|---|---|---|---|---|---|", flush=True)
    for count in options.instances:
        arguments = ["--one", "--instances", count, "--users", users, "--sequences", options.sequences]
        command = [sys.executable, __file__, *map(str, [*arguments, "--window", options.window])]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(
            f"| {count:,} | {found['before']:,.0f} | {found['peak']:,.0f} | {found['tokens']:,.0f} | "
            f"{found['slots']:.1f} | {found['seconds']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

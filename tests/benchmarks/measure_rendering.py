"""How fast prompts are rendered, against the limit: one pass of the tokenizer over the finished prompts, as a table.

    python tests/benchmarks/measure_rendering.py --model FOLDER --data FOLDER [--methods rag dep] [--retrievers bm25]
    python tests/benchmarks/measure_rendering.py --model FOLDER --data FOLDER --hashes FILE

An instance's first stage is measured, the second time (vectors are on disk then): processor seconds on one core, and
seconds with two threads. "one by one" calls the tokenizer for each prompt, as a user of transformers would, "batch"
gives all to `encode_batch_fast`. With `--hashes` nothing is measured: the hashes of all prompts of all stages, with
placeholders for answers, are written to FILE or, where it is there, compared with what another build wrote to it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.chat import Chat
from bench.config import build
from bench.records import Completion, Instance, Prompt
from bench.resolved import Inputs, Run
from bench.work import Work

METHODS = ("nonperso", "rag", "pag", "dpl", "pplug", "dep")
RETRIEVERS = ("random", "bm25", "recency", "contriever")


def configured(options: argparse.Namespace, inputs: Inputs, method: str, retriever: str, results: str) -> Run:
    """A run of the options' data and model."""
    settings: dict[str, Any] = {
        **{"method": method, "retriever": retriever, "dataset": options.data, "model": options.model},
        **{"k": options.k, "input_budget": options.budget, "max_new_tokens": 256, "results": results},
        **{name: {"encoder": options.encoder} for name in ("dpl", "pplug", "dep")},
        "contriever": {"model": options.encoder},
    }
    run = Run(build(settings), inputs)
    run.instances = run.instances[: options.limit]
    return run


def all_prompts(run: Run, instance: Instance) -> str:
    """A hash over all of an instance's prompts."""
    digest, work = hashlib.sha256(), Work(run, instance)
    while calls := work.advance():
        for call in calls:
            digest.update(f"{call.prompt.hash} {call.prompt.blocks_shown} {call.prompt.slots}\n".encode())
            work.answer(call, Completion(f"(the answer to {call.prompt.stage})", 0, 0, "stop", 0.0))
    return digest.hexdigest()


def compare(options: argparse.Namespace, inputs: Inputs, results: str) -> None:
    """Write all prompts' hashes or compare them, a method and a retriever at a time."""
    known = json.loads(options.hashes.read_text()) if options.hashes.exists() else {}
    for method in options.methods:
        for retriever in options.retrievers:
            key = f"{method}/{retriever}"
            run = configured(options, inputs, method, retriever, results)
            found = {instance.id: all_prompts(run, instance) for instance in run.instances}
            if key in known:
                others = [name for name, value in found.items() if known[key].get(name) != value]
                print(f"{key}: {len(found) - len(others)} of {len(found)} instances equal {others[:3]}", flush=True)
            else:
                known[key] = found
                options.hashes.write_text(json.dumps(known))
                print(f"{key}: {len(found)} instances written", flush=True)


def rendered(run: Run, instances: Sequence[Instance]) -> list[Prompt]:
    """The prompts of the first stage."""
    return [call.prompt for instance in instances for call in Work(run, instance).advance()]


def forgetful(run: Run) -> Run:
    """The run with the tokenizer at hand, but none of the prompts that it saw."""
    chat = Chat(run.chat.model, run.chat.template, run.chat.variables)
    vars(chat)["tokenizer"] = run.chat.tokenizer
    fresh = copy.copy(run)
    fresh.contexts = {category: replace(context, chat=chat) for category, context in run.contexts.items()}
    return fresh


def at_once(work: Callable[[Sequence[Instance]], object], instances: Sequence[Instance]) -> float:
    """Seconds of two threads that share the instances."""
    threads = [threading.Thread(target=work, args=(instances[half::2],)) for half in range(2)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def measured(run: Run, repeats: int) -> str:
    """A row of the table: medians of passes in turn."""
    prompts = rendered(run, run.instances)
    texts, tokenizer = [run.chat.text(prompt) for prompt in prompts], run.chat.tokenizer
    fast = tokenizer.backend_tokenizer

    def batch() -> object:
        return fast.encode_batch_fast(texts, add_special_tokens=False)

    taken: dict[str, list[float]] = {}
    for _ in range(repeats):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        for name, work in (
            ("render", lambda: rendered(forgetful(run), run.instances)),
            ("one by one", lambda: [tokenizer(text, add_special_tokens=False) for text in texts]),
            ("batch", batch),
        ):
            start = time.process_time()
            work()
            taken.setdefault(name, []).append(time.process_time() - start)
        fresh = forgetful(run)
        taken.setdefault("two", []).append(at_once(partial(rendered, fresh), run.instances))
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        start = time.perf_counter()
        batch()
        taken.setdefault("batch of two", []).append(time.perf_counter() - start)
    count = len(run.instances)
    speed = {name: count / statistics.median(seconds) for name, seconds in taken.items()}
    shares = [
        statistics.median(limit / own for limit, own in zip(taken[limits], taken[own], strict=True))
        for limits, own in (("one by one", "render"), ("batch", "render"), ("batch of two", "two"))
    ]
    figures = [speed["render"], speed["one by one"], speed["batch"], speed["two"], speed["batch of two"]]
    return " | ".join([*(f"{figure:,.0f}" for figure in figures), *(f"{share:.2f}" for share in shares)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast prompts are rendered.")
    parser.add_argument("--model", required=True, help="a folder with a tokenizer")
    parser.add_argument("--data", required=True, help="a prepared data set")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--retrievers", nargs="+", default=RETRIEVERS)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--encoder", default="hashed-ngrams")
    parser.add_argument("--limit", type=int, help="instances (default: all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hashes", type=Path, help="a file of hashes to write, or to compare with")
    parser.add_argument("--results", help="a folder for vectors (default: one for this call)")
    options = parser.parse_args()
    inputs = Inputs()
    with tempfile.TemporaryDirectory() as folder:
        results = options.results or folder
        if options.hashes is not None:
            compare(options, inputs, results)
            return
        print("| method | retriever | rendered/s | one by one/s | batch/s | rendered/s, two threads | batch/s, two |")
        print("share of one by one | of batch | of batch of two |\n|" + "---|" * 10, flush=True)
        for method in options.methods:
            for retriever in options.retrievers:
                run = configured(options, inputs, method, retriever, results)
                print(f"| {method} | {retriever} | {measured(run, options.repeats)} |", flush=True)


if __name__ == "__main__":
    main()

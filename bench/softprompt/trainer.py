"""Training of a method's adapter on a frozen language model, on one device or, under `accelerate launch`, on several.

The prompts are those of inference: the first prompt that the method's steps yield. A killed training goes on from its
newest checkpoint and ends with the weights that it would have had.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import machine
from bench.chat import Chat
from bench.config import TrainConfig
from bench.errors import DamagedError, DataError, ResourceError, StoreError
from bench.files import content_hash
from bench.models import loadable_model, threads, without_progress_bars
from bench.progress import Progress, duration, say
from bench.records import Instance, Prompt
from bench.resolved import Run
from bench.results import TrainingRecord, TrainingStep
from bench.softprompt import processes
from bench.softprompt.adapters import (
    AdapterFiles,
    not_finite,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
    write_tensors,
)
from bench.softprompt.decoder import Prefixes
from bench.softprompt.marks import drawn, give_rows
from bench.softprompt.objective import Example, Losses, batches, losses
from bench.work import first_prompt

if TYPE_CHECKING:
    from accelerate import Accelerator

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's running means, as torch names them."""
KEPT_BYTES = 2**30
"""How much is kept from one epoch to the next of what the frozen model makes of the tokens before the first slots."""


def example(chat: Chat, prompt: Prompt, reference: str, max_target_tokens: int, ends: bool = False) -> Example:
    """What a prompt and the user's real review are to the model: the tokens of inference, then the answer's
    (`Chat.answer_ids`)."""
    ids = chat.ids(prompt)
    slots = chat.positions(prompt, ids)
    answer = chat.answer_ids(reference.strip(), max_target_tokens, ends)
    return Example(
        ids=np.asarray([*ids, *answer], np.int32),
        slots=np.asarray(slots, np.int32),
        targets=len(ids),
        # Made now, not in the first step that needs them: an encoder that is missing is found before the training.
        features=dict(prompt.features),
    )


def example_of(run: Run, instance: Instance, settings: TrainConfig) -> Example:
    """An instance's first prompt under a run with the user's real text, as `settings`, with every switch set, have it
    cut."""
    assert settings.max_target_tokens is not None
    reference = run.corpora[instance.category].reference(instance)
    ends = bool(settings.cut_target_ends)
    return example(run.chat, first_prompt(run, instance), reference, settings.max_target_tokens, ends)


def learning_rate_at(step: int, steps: int, peak: float, warmup: float) -> float:
    """The learning rate of a step, counted from 0: up linearly over the first `warmup` of the steps, then down
    linearly to 0."""
    rising = math.ceil(steps * warmup)
    if step < rising:
        return peak * step / rising
    return peak * (steps - step) / max(steps - rising, 1)


def schedule(examples: int, config: TrainConfig) -> tuple[int, int]:
    """The optimiser steps that go once over so many examples, and those of the whole training."""
    per_epoch = math.ceil(examples / config.batch_size)
    if config.whole_batches:
        return per_epoch, max(examples // config.batch_size, 1) * config.epochs
    return per_epoch, per_epoch * config.epochs


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to be trained.

    `adapter` makes a fresh one for a language model's hidden size, `examples` gives the training examples in a fixed
    order, `vocabulary`, called after it, how many tokens the tokenizer has then, `marks` the ids of the method's marks
    that an embedding table of so many rows has no row for; all are called only if there is work to do. `token_weights`
    gives, for the frozen model, how much each target token of the examples counts; None: all alike. Every switch of
    `config` is set. `aux_reduction` says how the method's own losses combine over the instances of a step.
    """

    label: str
    folder: Path
    model: str
    config: TrainConfig
    learning_rate: float
    aux_reduction: str
    adapter: Callable[[int], torch.nn.Module]
    examples: Callable[[], Sequence[Example]]
    vocabulary: Callable[[], int]
    marks: Callable[[int], Mapping[str, int]]
    token_weights: Callable[[Any], Sequence[NDArray[np.float32]]] | None = None


def train(job: TrainingJob) -> None:
    """Train, or go on training. Call under the folder's lock. Raises `BenchError`; what was finished is kept."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with _threads(threads(job.model)):
        accelerator = processes.accelerator(job.config.clip)
        try:
            _Training(job, accelerator).run()
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"training {job.label} ran out of GPU memory; run again with less train.tokens_per_batch "
                f"(now {job.config.tokens_per_batch}): it goes on from its last checkpoint"
            ) from error
        finally:
            accelerator.free_memory()
    gc.collect()
    machine.give_back_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many on a CPU while the block runs."""
    before = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    """The state of one training."""

    def __init__(self, job: TrainingJob, accelerator: Accelerator) -> None:
        self.job = job
        self.files = AdapterFiles(job.folder)
        self.config = job.config
        self.accelerator = accelerator
        self.main: bool = accelerator.is_main_process
        self.model = frozen_model(job.model, getattr(torch, self.config.dtype), accelerator.device)
        # What the first process embeds the others find on disk.
        with accelerator.main_process_first():
            self.examples = [one for one in self._weighted() if len(one.slots)]
            if not self.examples:
                raise DataError(
                    f"training {job.label}: no training instance has a prompt with a soft token to learn from"
                )
            torch.manual_seed(self.config.seed)
            # On the CPU, so that the same seed gives the same start on every device.
            self.bare = job.adapter(self.model.config.get_text_config().hidden_size)
        self.prefixes = Prefixes(KEPT_BYTES if self.config.epochs > 1 else 0)
        self.vocabulary = job.vocabulary() if self.config.vocabulary == "tokenizer" else None
        self.parameters = [p for p in self.bare.parameters() if p.requires_grad]
        matrices = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=job.learning_rate, betas=(0.9, 0.999))
        self.per_epoch, self.steps = schedule(len(self.examples), self.config)
        self.log: list[TrainingStep] = []
        self.done = 0
        self.hashes: dict[str, str] = {}
        """SHA-256 of the weights after each epoch, by the file's name."""
        checkpoint = self._read_checkpoint()
        with accelerator.main_process_first():
            self._give_marks()
        # After the weights are in: DeepSpeed copies them.
        self.adapter, self.optimizer = accelerator.prepare(self.bare, optimizer)
        if checkpoint:
            self._restore_moments(checkpoint)

    def _weighted(self) -> Sequence[Example]:
        """The training examples, their tokens weighted if the job says so."""
        examples = self.job.examples()
        if self.job.token_weights is None:
            return examples
        weights = self.job.token_weights(self.model)
        return [replace(one, weights=of) for one, of in zip(examples, weights, strict=True)]

    def _give_marks(self) -> None:
        """Let the model have vectors for the marks of the method that it has no embeddings for: those that the
        training began with."""
        table = self.model.get_input_embeddings()
        ids = self.job.marks(table.num_embeddings)
        if not ids:
            return
        path = self.files.marks
        if path.name in self.hashes:
            vectors = read_tensors(path)
        else:
            vectors = dict(zip(ids, drawn(table, len(ids), self.config.seed), strict=True))
            if self.main:
                self.hashes[path.name] = write_tensors(path, vectors)
        give_rows(self.model, vectors, ids)

    def run(self) -> None:
        """All epochs that are missing, then training.json."""
        epochs, more = divmod(self.steps, self.per_epoch)
        total = epochs * len(self.examples) + more * self.config.batch_size
        progress = Progress(f"training {self.job.label}", total) if self.main else None
        done = sum(row.instances for row in self.log)
        started = time.perf_counter()
        trained = 0
        if progress is not None:
            progress.update(finished=done)
            progress.start()
        for step in range(self.done, self.steps):
            chosen = self._chosen(step)
            row = self._step(step, chosen)
            trained += len(chosen)
            self.log.append(row)
            if progress is not None:
                progress.update(finished=len(chosen), note=f"loss {row.loss:.3f}")
            epoch_ends = (step + 1) % self.per_epoch == 0 or step + 1 == self.steps
            if epoch_ends:
                self._write_epoch(step // self.per_epoch + 1)
            if epoch_ends or (step + 1) % self.config.checkpoint_every == 0:
                self._write_checkpoint(step + 1)
        if progress is not None:
            progress.close()
        if self.main:
            self._finish(trained, time.perf_counter() - started)
        self.accelerator.wait_for_everyone()

    def _chosen(self, step: int) -> list[Example]:
        """The examples of a step: each epoch has its own order, which follows from seed and epoch alone."""
        epoch, number = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.examples))
        size = self.config.batch_size
        return [self.examples[index] for index in order[number * size : (number + 1) * size]]

    def _step(self, step: int, chosen: Sequence[Example]) -> TrainingStep:
        """One optimiser step on the mean over `chosen`, which the processes share."""
        started = time.perf_counter()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        # A process without an example of its own takes one with weight 0: all have to take part.
        share = chosen[rank::world] or chosen[:1]
        weight = float(rank < len(chosen))
        own_weight = len(chosen) if self.job.aux_reduction == "sum" else 1.0
        tokens = sum(one.target_tokens for one in chosen)
        sums = torch.zeros(2, device=self.accelerator.device)
        parts = list(batches(share, self.config.tokens_per_batch))
        for number, part in enumerate(parts):
            with self._accumulating(last=number == len(parts) - 1):
                found = self._losses(part, len(chosen) / tokens)
                total = (found.generation + own_weight * found.own).sum()
                # Processes average their gradients.
                self._backward(total * (weight * world / len(chosen)))
            sums += weight * torch.stack([found.generation.detach().sum(), found.own.detach().sum()])
        generation, own = (self.accelerator.reduce(sums, "sum") / len(chosen)).tolist()
        rate = learning_rate_at(step, self.steps, self.job.learning_rate, self.config.warmup)
        norm = self._update(rate)
        if not math.isfinite(generation + own + norm):
            raise StoreError(
                f"training {self.job.label}: the loss of step {step + 1} is not finite, or its gradient (generation "
                f"{generation}, own {own}, norm of the gradient {norm}); lower train.learning_rate. Nothing of this "
                "step was kept"
            )
        if name := not_finite(dict(self.bare.named_parameters())):
            raise StoreError(
                f"training {self.job.label}: step {step + 1} left {name} with numbers that are not finite; lower "
                "train.learning_rate. Nothing of this step was kept"
            )
        return TrainingStep(
            step=step + 1,
            epoch=step // self.per_epoch + 1,
            instances=len(chosen),
            tokens=sum(len(one.ids) for one in chosen),
            loss=generation + own_weight * own,
            generation=generation,
            own=own_weight * own,
            gradient_norm=norm,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
        )

    def _losses(self, examples: Sequence[Example], per_token: float) -> Losses:
        """Of a part of a step; with `cross_entropy=token` an example counts for as many as its target has tokens, each
        `per_token`."""
        found = losses(self.model, self.adapter, examples, self.vocabulary, self.prefixes)
        if self.config.cross_entropy != "token":
            return found
        counts = torch.tensor([one.target_tokens * per_token for one in examples], device=found.generation.device)
        return Losses(found.generation * counts, found.own)

    @contextmanager
    def _accumulating(self, last: bool) -> Iterator[None]:
        """Of the parts of a step: gradients go round the processes after the last one only."""
        if self._deepspeed:
            self.adapter.set_gradient_accumulation_boundary(last)
        with nullcontext() if last or self._deepspeed else self.accelerator.no_sync(self.adapter):
            yield

    def _backward(self, loss: Tensor) -> None:
        if self._deepspeed:
            # Not accelerate's, which would take a step of the optimiser after each part.
            self.adapter.backward(loss)
        else:
            self.accelerator.backward(loss)

    def _update(self, rate: float) -> float:
        """The optimiser's step; the gradient's norm before it is clipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._deepspeed:
            self.adapter.step()
            return float(self.adapter.get_global_grad_norm())
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.config.clip))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    @property
    def _deepspeed(self) -> bool:
        return str(self.accelerator.distributed_type).endswith("DEEPSPEED")

    def _write_epoch(self, epoch: int) -> None:
        if self.main:
            path = self.files.weights(epoch)
            self.hashes[path.name] = write_tensors(path, self.bare.state_dict())

    def _write_checkpoint(self, step: int) -> None:
        """The log first: rows beyond the checkpoint's step are dropped on resuming."""
        moments = self._moments(step)
        if self.main:
            self.files.write_steps(self.log)
            weights = {f"weights.{name}": tensor for name, tensor in self.bare.state_dict().items()}
            about = {"step": step, "adapter": self.files.folder.name, "files": self.hashes}
            write_checkpoint(self.files.checkpoint, weights | moments, about)

    def _moments(self, step: int) -> dict[str, Tensor]:
        """Adam's state of each parameter that has one, by name and the parameter's number. All processes have to ask:
        with DeepSpeed each has a part of it."""
        if not self._deepspeed:
            # A parameter has no state before its first gradient, and steps of its own.
            return {
                f"{name}.{number}": self.optimizer.state[parameter][name]
                for number, parameter in enumerate(self.parameters)
                if parameter in self.optimizer.state
                for name in ("step", *MOMENTS)
            }
        get_full = processes.deepspeed_utils(self.optimizer.optimizer).safe_get_full_optimizer_state
        found = {
            f"{name}.{number}": get_full(parameter, name)
            for number, parameter in enumerate(self.parameters)
            for name in MOMENTS
        }
        return found | {f"step.{number}": torch.tensor(float(step)) for number in range(len(self.parameters))}

    def _read_checkpoint(self) -> dict[str, Tensor]:
        """Take weights, step and log from the newest checkpoint; what it holds, nothing if there is none or if it or
        what was written before it is damaged."""
        path = self.files.checkpoint
        if not path.exists():
            return {}
        try:
            tensors, about = read_checkpoint(path)
            if about["adapter"] != self.files.folder.name:
                raise DamagedError(path, f"it belongs to {about['adapter']}")
            for name, digest in about["files"].items():
                if content_hash(self.files.folder / name) != digest:
                    raise DamagedError(self.files.folder / name, "it is not as it was written")
            log = self.files.steps_until(about["step"])
        except DamagedError as error:
            if self.main:
                say(f"{error.what}; training {self.job.label} starts over")
            return {}
        self.done, self.log, self.hashes = about["step"], log, about["files"]
        self.bare.load_state_dict(
            {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
        )
        if self.main and self.done < self.steps:
            say(f"training {self.job.label}: going on after step {self.done} of {self.steps}")
        return tensors

    def _restore_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the optimiser the state that `_moments` found."""
        if not self._deepspeed:
            for number, parameter in enumerate(self.parameters):
                if f"step.{number}" in tensors:
                    self.optimizer.state[parameter] = {
                        "step": tensors[f"step.{number}"],
                        **{name: tensors[f"{name}.{number}"].to(parameter.device) for name in MOMENTS},
                    }
            return
        # Its state comes into being with the first step; this one, at a learning rate of 0, changes no weight.
        with self._accumulating(last=True):
            found = losses(self.model, self.adapter, self.examples[:1])
            self._backward(found.generation.sum() * 0)
        self._update(0.0)
        set_full = processes.deepspeed_utils(self.optimizer.optimizer).safe_set_full_optimizer_state
        for state in self.optimizer.state.values():
            state["step"].fill_(float(self.done))
        for number, parameter in enumerate(self.parameters):
            for name in MOMENTS:
                value = tensors.get(f"{name}.{number}", torch.zeros_like(parameter))
                set_full(parameter, value.to(parameter.device), name)

    def _finish(self, instances: int, seconds: float) -> None:
        trainable = sum(p.numel() for p in self.parameters)
        frozen = sum(p.numel() for p in self.model.parameters())
        # Rows beyond the checkpoint may lie there.
        self.files.write_steps(self.log)
        record = TrainingRecord(
            epochs=math.ceil(self.steps / self.per_epoch),
            steps=self.steps,
            instances=len(self.examples),
            parameters=trainable,
            share=trainable / (trainable + frozen),
            processes=self.accelerator.num_processes,
            seconds=sum(row.seconds for row in self.log),
            files=self.hashes | {self.files.log.name: content_hash(self.files.log)},
        )
        self.files.write_training(record)
        speed = f", {instances / seconds:.1f} instances/s" if instances else ""
        say(
            f"training {self.job.label}: {record.epochs} epochs of {len(self.examples)} instances in "
            f"{duration(record.seconds)}{speed}; {trainable:,} parameters ({100 * record.share:.2f}%)"
        )


def frozen_model(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A causal language model that no gradient is kept for. Raises `ResourceError` if it cannot be loaded."""
    location = loadable_model(name)
    from transformers import AutoModelForCausalLM

    without_progress_bars()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            location, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResourceError(f"model '{name}' cannot be loaded for training: {first}") from error
    return model.requires_grad_(False).eval().to(device)  # type: ignore[no-untyped-call]

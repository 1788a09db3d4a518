"""The adapter of a run, which exists only where the run's prompts have slots: a trained or an imported one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.config import RunConfig
from bench.errors import MEND, ConfigError, DamagedError, ResourceError, StoreError
from bench.files import content_hash, unwritable, write_held
from bench.identity import selection_identity, training_identity
from bench.models import require_at_hand, resolve_model
from bench.naming import adapter_name, folder_of, readable_name
from bench.progress import say
from bench.protocols import TrainedMethod
from bench.records import Instance
from bench.report.names import named_score
from bench.resolved import Run
from bench.results import AdapterRecord, AdapterSummary, Selection, identity_hash, older
from bench.softprompt.adapters import AdapterFiles, adapter_folder, read_tensors, write_tensors
from bench.work import first_prompt

if TYPE_CHECKING:
    import torch

    from bench.softprompt.influence import Influence, Nats
    from bench.softprompt.marks import Vectors
    from bench.softprompt.objective import Example
    from bench.softprompt.trainer import TrainingJob
    from bench.softprompt.vectors import PromptVectors


class TrainedAdapter:
    """An adapter that is trained for a run's configuration, on the prompts of `training`; the validation subset of that
    run chooses the epoch."""

    mend = MEND

    def __init__(self, run: Run) -> None:
        self.method: TrainedMethod = run.method  # type: ignore[assignment]
        config = _training_config(run.config)
        self.training = Run(config, run.inputs, validation=config.train.validation)
        self.learning_rate = config.train.learning_rate or self.method.learning_rate
        self.select_by = config.train.select_by

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that can change the weights after each epoch."""
        influence = None if self.influence is None else self.influence.identity
        return training_identity(self.training, self.learning_rate, influence)

    @cached_property
    def influence(self) -> Influence | None:
        """What the tokens of its training texts are weighted by; None where all count alike."""
        if self.training.config.train.loss == "plain":
            return None
        from bench.softprompt.influence import Influence

        return Influence(self.training)

    @cached_property
    def folder(self) -> Path:
        """Where the adapter is, or will be, kept."""
        name = adapter_name(self.training, self.identity)
        place = adapter_folder(self.training.config.results, name).parent
        return folder_of(place, name, readable_name(self.training), identity_hash(self.identity))

    @property
    def files(self) -> AdapterFiles:
        """What is in the folder."""
        return AdapterFiles(self.folder)

    def older(self) -> list[str]:
        """Sentences on the adapters of the same name that an older version of bench trained: none of them is used."""
        neighbours = self.folder.parent.glob(f"{readable_name(self.training)}-*/adapter.json")
        return older(neighbours, "it is not used, and the adapter is trained anew")

    @cached_property
    def selection_folder(self) -> Path:
        """Where the validation runs are kept that choose the epoch."""
        return self.folder / f"validation-{identity_hash(selection_identity(self.training, self.identity))}"

    @property
    def run_identity(self) -> dict[str, Any]:
        """What the identity of a run with this adapter says of it."""
        return self.epoch_identity() | {"selection": self.selection_folder.name}

    def epoch_identity(self, epoch: int | None = None) -> dict[str, Any]:
        """The same with the weights of an epoch, whether chosen or not."""
        return {"trained": identity_hash(self.identity), **({} if epoch is None else {"epoch": epoch})}

    @property
    def is_trained(self) -> bool:
        """Whether the training is complete. Raises `StoreError` for a folder of an older schema, `DamagedError` if a
        file is damaged that is needed: of the weights those of the chosen epoch, before it is chosen all."""
        if not self.files.is_trained:
            return False
        record = self.files.record()
        if record is None or identity_hash(record.identity or {}) != identity_hash(self.identity):
            problem = "it is missing" if record is None else "it records another adapter"
            raise DamagedError(self.folder / "adapter.json", problem)
        try:
            selection = self.selection
        except DamagedError:
            selection = None
        for epoch in range(1, self.epochs + 1) if selection is None else (selection.epoch,):
            self.weights(epoch)
        return True

    @property
    def epochs(self) -> int:
        """How many epochs there are weights of: fewer than were asked for where a schedule of whole batches ends early
        in a small data set."""
        record = self.files.training()
        return self.training.config.train.epochs if record is None else record.epochs

    @property
    def selection(self) -> Selection | None:
        """The chosen epoch, if it is chosen. Raises `DamagedError` if that is damaged, or of other weights."""
        path = self.selection_folder / "selection.json"
        selection = Selection.read(path) if path.exists() else None
        if selection is not None and selection.weights != self._hashes.get(selection.epoch, selection.weights):
            raise DamagedError(path, "it was chosen among other weights than the adapter has now")
        return selection

    @property
    def _hashes(self) -> dict[int, str]:
        """SHA-256 of the weights after each epoch; none before the training is complete."""
        record = self.files.training()
        epochs = range(1, record.epochs + 1) if record is not None else ()
        return {epoch: record.files.get(self.files.weights(epoch).name, "") for epoch in epochs if record is not None}

    def weights_hash(self, epoch: int | None = None) -> str | None:
        """SHA-256 of the weights after an epoch, by default the chosen one; None if they are not there."""
        try:
            if epoch is None:
                epoch = None if self.selection is None else self.selection.epoch
            return None if epoch is None else self._hashes.get(epoch)
        except DamagedError:
            return None

    def best(self, scores: Mapping[int, float]) -> int:
        """The epoch with the best validation score, the first among equals."""
        (metric,) = self.training.metrics.values()
        better = next(column.better for column in metric.columns if column.name == self.select_by)
        return (min if better == "lower" else max)(scores, key=lambda epoch: scores[epoch])

    def keep(self, selection: Selection) -> None:
        """Write down which epoch is chosen. Raises `StoreError`."""
        write_held(self.selection_folder / "selection.json", selection.text())

    def weights(self, epoch: int | None = None) -> Path:
        """The weights after an epoch, by default the chosen one. Raises `StoreError` if none is chosen yet,
        `DamagedError` if they are not those that the training ended with."""
        if epoch is None:
            if self.selection is None:
                raise StoreError(f"{self.folder} has no chosen epoch yet; run `bench train` with the same options")
            epoch = self.selection.epoch
        return self._unchanged(self.files.weights(epoch))

    def _unchanged(self, path: Path) -> Path:
        """A file of the training. Raises `DamagedError` if it is not what the training ended with."""
        record = self.files.training()
        if (now := content_hash(path)) != (None if record is None else record.files.get(path.name)):
            raise DamagedError(path, "it is not as it was after the training" if now else "it is missing")
        return path

    def marks(self, names: Collection[str]) -> Vectors:
        """The vectors of those of the method's marks that the model has no embeddings for, as they were trained with.
        Raises `DamagedError`."""
        tensors = read_tensors(self._unchanged(self.files.marks), self.mend) if names else {}
        return {name: tensors[name].numpy() for name in names}

    def summary(self) -> AdapterSummary:
        """What a summary says of the adapter that made a run's vectors."""
        record, selection = self.files.training(), self.selection
        if record is None or selection is None:
            raise StoreError(
                f"{self.folder} is gone or not complete, though texts were made with it; bring it back, or move their "
                "run's folder away to train and write anew"
            )
        return AdapterSummary(
            name=self.folder.name,
            parameters=record.parameters,
            share=record.share,
            epochs=record.epochs,
            instances=record.instances,
            epoch=selection.epoch,
        )

    @property
    def instances(self) -> list[Instance]:
        """The training instances of all categories: for each user the one with the longest profile (DEP, 4.1)."""
        limit = self.training.config.train.limit
        return [
            instance
            for corpus in self.training.corpora.values()
            for instance in corpus.longest_profiles("train")[:limit]
        ]

    def examples(self, instances: Sequence[Instance] | None = None) -> list[Example]:
        """The training examples of `instances`, by default of all that it is trained on."""
        from bench.softprompt.trainer import example_of

        settings = self.training.config.training
        chosen = self.instances if instances is None else instances
        return [example_of(self.training, instance, settings) for instance in chosen]

    def length(self, instance: Instance) -> int:
        """Tokens of an instance's training example; 0 for one without a slot, which is left out of the training."""
        run, settings = self.training, self.training.config.training
        prompt = first_prompt(run, instance)
        if not prompt.slots:
            return 0
        assert settings.max_target_tokens is not None
        reference = run.corpora[instance.category].reference(instance).strip()
        ends = bool(settings.cut_target_ends)
        return run.chat.count(prompt) + run.chat.answer_tokens(reference, settings.max_target_tokens, ends)

    def job(self) -> TrainingJob:
        """What the trainer is told."""
        from bench.softprompt.trainer import TrainingJob

        config = self.training.config
        return TrainingJob(
            label=config.method,
            folder=self.folder,
            model=config.model,
            config=config.training,
            learning_rate=self.learning_rate,
            aux_reduction=self.method.aux_reduction,
            adapter=partial(fresh_adapter, self.training),
            examples=self.examples,
            token_weights=None if self.influence is None else self._token_weights,
            vocabulary=lambda: self.training.chat.vocabulary(self.method.marks),
            marks=lambda rows: self.training.chat.mark_ids(self.method.marks, rows),
        )

    def _token_weights(self, model: Any) -> list[Nats]:
        from bench.softprompt.influence import token_weights

        assert self.influence is not None
        settings = self.training.config.train
        found = self.influence.of(self.instances, model, settings.tokens_per_batch)
        return [token_weights(nats, settings.loss_clip) for nats in found]

    def draw(self) -> None:
        """Draw the losses by step and, once they are there, the validation scores by epoch."""
        from bench.softprompt import picture

        try:
            scores = {} if self.selection is None else self.selection.scores
            picture.draw(self.files.picture, self.folder.name, self.files.steps(), self.select_by, scores)
        except DamagedError as error:
            say(f"{self.files.picture} is not drawn: {error.what}")


class ImportedAdapter:
    """A method's adapter that was trained elsewhere (`bench adapter import`). Raises `ConfigError` for a folder that
    does not hold one, or another method's, and `DamagedError` for one that is not as it was imported."""

    mend = "Import it again: bench adapter import FOLDER_OR_HUB_ID --method METHOD"

    def __init__(self, folder: Path, method: str) -> None:
        self.folder = folder
        try:
            record = AdapterFiles(folder).record()
        except DamagedError as error:
            raise DamagedError(error.where, error.problem, self.mend) from None
        if record is None or not self.weights().is_file():
            raise ConfigError(
                f"adapter: {folder} does not hold an imported adapter (adapter.json and adapter.safetensors); make one "
                "with `bench adapter import FOLDER_OR_HUB_ID --method METHOD`"
            )
        if record.method != method:
            raise ConfigError(f"adapter: {folder} is of method {record.method}, not of {method}")
        self._hash = content_hash(self.weights())
        if record.weights and record.weights != self._hash:
            raise DamagedError(self.weights(), "it is not as it was imported", self.mend)

    @classmethod
    def write(
        cls,
        folder: Path,
        method: str,
        tensors: Mapping[str, torch.Tensor],
        source: str | None = None,
        marks: Mapping[str, torch.Tensor] | None = None,
    ) -> ImportedAdapter:
        """Keep tensors as an imported adapter in a folder, with the vectors of marks that its model has no embeddings
        for. Raises `StoreError`."""
        files = AdapterFiles(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        weights = write_tensors(files.imported, tensors)
        if marks:
            write_tensors(files.marks, marks)
        shapes = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
        files.write_record(AdapterRecord(method=method, source=source, weights=weights, tensors=shapes))
        return cls(folder, method)

    @property
    def run_identity(self) -> dict[str, Any]:
        """What the identity of a run with this adapter says of it."""
        return {"imported": self._hash}

    def weights_hash(self, epoch: int | None = None) -> str:
        """SHA-256 of the weights, as hex."""
        return self._hash

    def weights(self, epoch: int | None = None) -> Path:
        """The weights."""
        return AdapterFiles(self.folder).imported

    def marks(self, names: Collection[str]) -> Vectors:
        """The vectors that came with it for those of the method's marks that the model has no embeddings for. Raises
        `ConfigError` if it needs some and has none, `DamagedError`."""
        path = AdapterFiles(self.folder).marks
        if names and not path.is_file():
            raise ConfigError(
                f"the adapter {self.folder.name} is imported, and the model has no embeddings for the marks that it "
                f"was trained with ({', '.join(names)}); use the model that it was trained for, or train one for this"
            )
        tensors = read_tensors(path, self.mend) if names else {}
        return {name: tensors[name].numpy() for name in names}

    def summary(self) -> AdapterSummary:
        """What a summary says of the adapter that made a run's vectors."""
        return AdapterSummary(name=self.folder.name)


Adapter = TrainedAdapter | ImportedAdapter


def adapter_of(run: Run) -> Adapter | None:
    """The adapter of a run; None for a run without soft prompts."""
    if not has_slots(run):
        return None
    folder = run.config.adapter
    return TrainedAdapter(run) if folder is None else ImportedAdapter(folder, run.config.method)


def told_apart(run: Run) -> str | None:
    """A sentence on a run that decodes an imported adapter otherwise than the released code, which is what published
    ones were trained with; None for any other."""
    config = run.config
    if config.adapter is None or config.fidelity == "official" or not hasattr(run.method, "adapter"):
        return None
    return (
        f"{config.method}: the adapter {config.adapter.name} is imported and fidelity is {config.fidelity}: an adapter "
        "that its authors released learned from their code's prompts; decode it with --set fidelity=official "
        "(--config official-7b)"
    )


def has_slots(run: Run) -> bool:
    """Whether the run's prompts have slots. A trained method's have none where all its vectors are of retrieved records
    and k is 0: that is the frozen model."""
    if not hasattr(run.method, "adapter"):
        return False
    if run.config.k or not run.method.properties.retrieval_augmented:
        return True
    return any(first_prompt(run, instance).slots for instance in run.instances)


def fresh_adapter(run: Run, hidden_size: int) -> torch.nn.Module:
    """A newly initialised adapter of the run's method, from torch's global random state."""
    method: TrainedMethod = run.method  # type: ignore[assignment]
    dimension = run.embeddings.embed(["how long is a vector?"], method.encoder).shape[1] if method.encoder else 0
    return method.adapter(dimension, hidden_size)


def table_shape(model: str) -> tuple[int, int]:
    """Rows and width of a language model's embedding table: (vocab_size, hidden_size). Raises `ResourceError` for a
    model that is not at hand."""
    require_at_hand(model)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolve_model(model), trust_remote_code=False).get_text_config()
        return int(config.vocab_size), int(config.hidden_size)
    except (OSError, ValueError, AttributeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResourceError(f"the configuration of model '{model}' cannot be loaded: {first}") from error


def hidden_size(model: str) -> int:
    """The width of a model's embeddings. Raises `ResourceError` for a model that is not at hand."""
    return table_shape(model)[1]


def prompt_vectors(run: Run, adapter: Adapter, epoch: int | None = None) -> PromptVectors:
    """What makes the vectors of a run's prompts, by default with the weights of the chosen epoch. Raises `ConfigError`
    for weights that do not fit, `DamagedError` for some that cannot be used."""
    from bench.softprompt.vectors import PromptVectors

    method: TrainedMethod = run.method  # type: ignore[assignment]
    rows, width = table_shape(run.config.model)
    return PromptVectors(
        fresh_adapter(run, width),
        adapter.weights(epoch),
        method.vectors,
        run.instances,
        lambda one: first_prompt(run, one),
        run.config.seed,
        marks=adapter.marks(run.chat.mark_ids(method.marks, rows)),
        mend=adapter.mend,
    )


def _training_config(config: RunConfig) -> RunConfig:
    """The configuration under which an adapter is trained and validated: its own k and seed, all users, and no
    option that matters only when texts are written."""
    options = {name: dict(values) for name, values in config.options.items()}
    options.get(config.method, {}).pop("vectors", None)
    changed = {
        "k": config.k if config.train.k is None else config.train.k,
        "seed": config.train.seed,
        "split": "val",
        "limit": None,
        "adapter": None,
        "options": options,
        "metrics": (_metric_of(config.metrics, config.train.select_by),),
    }
    return config.model_copy(update=changed)


def _metric_of(metrics: Sequence[str], column: str) -> str:
    """The metric that gives a score, those of the run first. Raises `ConfigError` if none does."""
    columns: dict[str, str] = {}
    for name in dict.fromkeys([*metrics, *registry.builtin_names("metrics")]):
        columns |= {one.name: one.head for one in registry.load("metrics", name).columns}
        if column in columns:
            return name
    near = registry.near_match(named_score(column, columns), columns)
    raise ConfigError(f"train.select_by: no metric gives a score '{column}'{near} There are: {', '.join(columns)}")

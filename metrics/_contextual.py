"""Token vectors of a transformers model's layer, each text encoded once and never together with its padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench.batching import batches
from bench.errors import ConfigError, ResourceError
from bench.models import loadable_model, without_progress_bars

if TYPE_CHECKING:
    import torch

_BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
_NO_LIMIT = 10**9
"""Tokenizers without a length limit say 10**30."""


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Unit vectors of a text's t tokens, shape (t, d), and the weight of each in its mean, shape (t,): 0 for the
    special tokens, 1 / (number of others) for the others."""

    vectors: torch.Tensor
    weights: torch.Tensor

    @property
    def bytes(self) -> int:
        """Memory of the vectors."""
        return self.vectors.numel() * self.vectors.element_size()


@dataclass
class TokenEncoder:
    """The first `layer` layers of a model, float32, on the GPU if there is one; `room` bytes for vectors to remember.

    Raises `ResourceError` for a model that cannot be loaded, `ConfigError` for a layer that it does not have and for an
    unknown architecture.
    """

    model: str
    layer: int
    room: int = 1 << 30
    _tokenizer: Any = field(init=False, repr=False)
    _body: Any = field(init=False, repr=False)
    _limit: int | None = field(init=False, repr=False)
    _remembered: dict[str, TokenVectors] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._tokenizer, model = _load(self.model)
        import torch

        body = model.encoder if hasattr(model, "encoder") and hasattr(model, "decoder") else model
        _keep_layers(body, self.layer, self.model)
        if type(body).__name__ == "LEDEncoder":
            _attend_plainly(body)
        self._limit = _longest(self._tokenizer, body)
        self._body = body.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def vectors(self, texts: Iterable[str], remember: bool = False) -> dict[str, TokenVectors]:
        """Vectors by text. With `remember` they are kept for later calls, as long as there is room."""
        wanted = set(texts)
        new = sorted(wanted - self._remembered.keys())
        encoded = self._encode(dict(zip(new, self._tokenize(new), strict=True)))
        known = {text: self._remembered[text] for text in wanted & self._remembered.keys()}
        for text, vectors in encoded.items() if remember else ():
            if vectors.bytes <= self.room:
                self.room -= vectors.bytes
                self._remembered[text] = vectors
        return known | encoded

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with special tokens, cut at the model's longest input."""
        if not texts:
            return []
        clean = [text.strip().encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self._tokenizer(clean, truncation=self._limit is not None, max_length=self._limit)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _encode(self, ids: Mapping[str, Sequence[int]]) -> dict[str, TokenVectors]:
        """Vectors by text of its token ids, kept in main memory."""
        import torch

        device = self._body.device
        special = torch.tensor([self._tokenizer.cls_token_id, self._tokenizer.sep_token_id])
        encoded = {}
        texts = list(ids)
        for rows in batches([len(ids[text]) for text in texts], _BATCH_TOKENS[device.type]):
            batch = [texts[row] for row in rows]
            tokens = [torch.tensor(ids[text]) for text in batch]
            padded = torch.nn.utils.rnn.pad_sequence(tokens, True, self._tokenizer.pad_token_id)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tokens], True, 0)
            with torch.inference_mode():
                states = self._body(padded.to(device), attention_mask=mask.to(device))[0]
                states = (states / states.norm(dim=-1, keepdim=True)).cpu()
            for text, row, state in zip(batch, tokens, states, strict=True):
                counted = (~torch.isin(row, special)).float()
                # The copy frees the batch's memory, padding included.
                encoded[text] = TokenVectors(state[: len(row)].clone(), counted / counted.sum().clamp(min=1))
        return encoded


def _load(name: str) -> tuple[Any, Any]:
    location = loadable_model(name)
    import torch
    from transformers import AutoModel, AutoTokenizer

    without_progress_bars()
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
        model, report = AutoModel.from_pretrained(
            location, use_safetensors=True, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ResourceError(f"bertscore: model '{name}' cannot be loaded: {reason}") from error
    absent = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if absent:
        raise ResourceError(f"bertscore: model '{name}' misses {len(absent)} of its weights, such as {absent[0]}")
    return tokenizer, model


def _keep_layers(body: Any, layer: int, name: str) -> None:
    """Drop the layers above `layer`, so that the model's output is that layer's."""
    places = (
        (getattr(body, "encoder", None), "layer"),
        (getattr(body, "transformer", None), "layer"),
        (body, "layers"),
    )
    for owner, attribute in places:
        layers = getattr(owner, attribute, None)
        if layers is not None:
            if not 0 < layer <= len(layers):
                raise ConfigError(f"bertscore.layer: model '{name}' has layers 1 to {len(layers)}, not {layer}")
            setattr(owner, attribute, layers[:layer])
            return
    raise ConfigError(f"bertscore.model: the layers of '{name}' ({type(body).__name__}) are not known")


def _longest(tokenizer: Any, body: Any) -> int | None:
    """The tokens that both the tokenizer and the model's positions allow; None if neither has a limit."""
    config = body.config
    positions = getattr(config, "max_encoder_position_embeddings", getattr(config, "max_position_embeddings", None))
    table = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    padding: int | None = getattr(table, "padding_idx", None)
    if positions is not None and padding is not None:
        # RoBERTa and its kin count positions from behind the padding token's id.
        positions -= padding + 1
    limits = [int(tokenizer.model_max_length), *([] if positions is None else [int(positions)])]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def _attend_plainly(encoder: Any) -> None:
    """Let an LED encoder attend without windows where the window covers the whole text.

    A token sees `one_sided` neighbours on each side; up to one_sided + 1 tokens (513 in the released models) that is
    all of them. LED computes it in chunks nonetheless and pads every batch to the window, 1024 tokens.
    """
    import torch

    reach = min(layer.self_attn.longformer_self_attn.one_sided_attn_window_size for layer in encoder.layers) + 1
    pad = encoder._pad_to_window_size

    def pad_if_longer(input_ids: Any, attention_mask: Any, inputs_embeds: Any, pad_token_id: int) -> tuple[Any, ...]:
        if attention_mask.shape[1] <= reach:
            return 0, input_ids, attention_mask, inputs_embeds
        padded: tuple[Any, ...] = pad(input_ids, attention_mask, inputs_embeds, pad_token_id)
        return padded

    def attention(windowed: Any) -> Any:
        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.view(*states.shape[:2], windowed.num_heads, windowed.head_dim).transpose(1, 2)

        original = windowed.forward

        def forward(hidden_states: torch.Tensor, is_index_masked: torch.Tensor, **others: Any) -> tuple[Any, ...]:
            if hidden_states.shape[1] > reach:
                longer: tuple[Any, ...] = original(hidden_states, is_index_masked=is_index_masked, **others)
                return longer
            query, key, value = (heads(part(hidden_states)) for part in (windowed.query, windowed.key, windowed.value))
            seen = ~is_index_masked[:, None, None, :]
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            return (mixed.transpose(1, 2).flatten(2),)

        return forward

    encoder._pad_to_window_size = pad_if_longer
    for layer in encoder.layers:
        windowed = layer.self_attn.longformer_self_attn
        windowed.forward = attention(windowed)


@lru_cache(maxsize=1)
def load(model: str, layer: int) -> TokenEncoder:
    """The encoder of a model, loaded once in a process."""
    return TokenEncoder(model, layer)

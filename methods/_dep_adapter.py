"""What DEP learns; apart from the method, whose options are read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from bench.methods.dep import DEP


class DEPAdapter(nn.Module):
    """Eq. 5, 6 and 8 to 11 but for the language model's loss. Parameters are named as in the released checkpoint."""

    def __init__(self, method: DEP, dimension: int, hidden_size: int) -> None:
        super().__init__()
        self.method = method
        width = dimension
        if method.refinement != "none":
            width = method.latent
            decoder: list[nn.Module] = [nn.Linear(width, dimension)]
            if method.decoder_activation == "gelu":
                decoder.append(nn.GELU())
            self.sae = nn.ModuleDict(
                {
                    "encoder": nn.Sequential(nn.Linear(dimension, width), nn.GELU()),
                    "decoder": nn.Sequential(*decoder),
                }
            )
        if method.embeddings != "diff":
            self.align_mlp_his = _projector(width, hidden_size)
        if method.embeddings != "his":
            self.align_mlp_diff = _projector(width, hidden_size)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                if method.init == "xavier":
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], Tensor | None]:
        """Vectors, shape (n, hidden_size) for each prompt's n slots, and each prompt's own losses, shape (prompts,);
        these are over the slots' rows and those named "unshown_...", where there are any."""
        dtype = next(self.parameters()).dtype
        lengths = [len(one["is_diff"]) for one in features]
        if self.method.refinement == "none":
            embeddings, is_diff = _rows(features, "embeddings").to(dtype), _rows(features, "is_diff") > 0.5
            return list(torch.split(self._project(embeddings, is_diff), lengths)), None
        whole = [_with_unshown(one) for one in features]
        embeddings, is_diff = _rows(whole, "embeddings").to(dtype), _rows(whole, "is_diff") > 0.5
        in_all = [len(one["is_diff"]) for one in whole]
        latent = self.sae["encoder"](embeddings)
        errors = functional.smooth_l1_loss(
            self.sae["decoder"](latent).float(), embeddings.float(), reduction="none"
        ).mean(dim=1)
        parts = [torch.split(rows, in_all) for rows in (errors, latent, is_diff)]
        own = torch.stack([self._own_loss(*rows) for rows in zip(*parts, strict=True)])
        if in_all != lengths:
            latent, is_diff = (
                torch.cat([rows[:length] for rows, length in zip(part, lengths, strict=True)]) for part in parts[1:]
            )
        return list(torch.split(self._project(latent, is_diff), lengths)), own

    def _project(self, rows: Tensor, is_diff: Tensor) -> Tensor:
        """Eq. 6, each row by the projector of its kind."""
        if self.method.embeddings != "both":
            only: Tensor = (self.align_mlp_his if self.method.embeddings == "his" else self.align_mlp_diff)(rows)
            return only
        his, diff = torch.nonzero(~is_diff)[:, 0], torch.nonzero(is_diff)[:, 0]
        projected = torch.cat([self.align_mlp_his(rows[his]), self.align_mlp_diff(rows[diff])])
        return projected[torch.argsort(torch.cat([his, diff]))]

    def _own_loss(self, errors: Tensor, latent: Tensor, is_diff: Tensor) -> Tensor:
        """lambda (L_recon + gamma L_sparse) of one prompt, in float32; `errors` is the mean SmoothL1 of each row."""
        method = self.method
        gamma = method.sparsity_weight if method.refinement == "sae" else 0.0
        kinds = [torch.ones_like(is_diff)] if method.losses == "joint" else [~is_diff, is_diff]
        total = errors.new_zeros(())
        for rows in kinds:
            # Without a row of the kind a mean would not be a number.
            if rows.any():
                total = total + errors[rows].mean() + gamma * _sparsity(latent[rows], method.sparsity_target)
        return method.recon_weight * total


def _rows(features: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    return torch.cat([one[name] for one in features])


def _with_unshown(features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A prompt's rows with those of the blocks that its budget left no room for behind them."""
    if "unshown_is_diff" not in features:
        return features
    return {name: torch.cat([features[name], features[f"unshown_{name}"]]) for name in ("embeddings", "is_diff")}


def _projector(width: int, hidden_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))


def _sparsity(latent: Tensor, target: float) -> Tensor:
    """Eq. 9 and 10: the mean over units of KL(target || the unit's mean activation over the rows)."""
    # GELU's outputs are no probabilities, and bfloat16 has no number between 1 - 1/256 and 1.
    activation = latent.float().mean(dim=0).clamp(1e-6, 1 - 1e-6)
    divergence = target * (target / activation).log() + (1 - target) * ((1 - target) / (1 - activation)).log()
    return divergence.mean()

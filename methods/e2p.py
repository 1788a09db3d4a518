"""E2P: the user's embedding, projected to one soft token (arXiv:2505.17051). The simplest adapter there is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.errors import ConfigError
from bench.protocols import Properties, Steps, Whose
from bench.records import Features, Instance, Prompt

if TYPE_CHECKING:
    from torch import nn

_USER = "[USER_TOKEN_0]"


@dataclass(frozen=True)
class E2P:
    """Non-Perso's prompt with one soft token at its head: a learned projection of the user's embedding. The language
    model is frozen. Beside PPlug and DEP it says what the least vector of a user gives: no attention to the input, no
    peers, no autoencoder.

    The user's embedding is the mean of the embeddings of the newest `max_history` texts of the profile: it needs
    nothing learned, hangs on no order, exists for one text as for hundreds, and is the vector by which the DEP paper
    tells unique users (section 4.4.2). `pooling=unit_mean` scales it to length 1: a mean is the shorter the more a
    user's texts differ, which the projection sees by default. A user without a history has the zero vector, so the soft
    token is the projection's bias, which every user in training has a part in; a vector learned for that case alone
    would stay as it was drawn wherever each user in training has a history.

    From the paper: a frozen model, and one soft token that is a projection of an embedding of the user. Ours, not
    verified against it: that the projection is linear, where the embedding comes from (there it is a given
    representation of the user), the token's place right before the item, initialisation and learning rate.
    """

    encoder: str = "BAAI/bge-m3"
    max_history: Annotated[int, Field(ge=1)] = 512
    pooling: Literal["mean", "unit_mean"] = "mean"
    vectors: Whose = "own"

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=True, inter_user=False)
    learning_rate: ClassVar[float] = 1e-5
    """DEP's, as PPlug's is: the rows of one table stay comparable."""
    aux_reduction: ClassVar[Literal["mean", "sum"]] = "mean"
    marks: ClassVar[tuple[str, ...]] = ()

    def steps(self, instance: Instance, context: Context) -> Steps:
        (text,) = yield [self._prompt(instance, context)]
        return text

    def adapter(self, dimension: int, hidden_size: int) -> nn.Module:
        """The projection."""
        from bench.methods._e2p_adapter import E2PAdapter

        return E2PAdapter(dimension, hidden_size)

    def _prompt(self, instance: Instance, context: Context) -> Prompt:
        prompt = context.prompt("write", instance, texts={"soft_tokens": _USER}, soft=True)
        if prompt.slots != (_USER,):
            raise ConfigError(
                f"the prompt {prompt.stage} must hold {{{{soft_tokens}}}} once, and input_budget leave room for it"
            )
        history = [record.text for record in instance.profile[-self.max_history :]]
        if not history:
            return prompt

        def features() -> dict[str, NDArray[np.float32]]:
            user = context.embed(history, self.encoder).mean(axis=0, keepdims=True)
            if self.pooling == "unit_mean":
                user = user / (np.linalg.norm(user) or 1.0)
            return {"user": user.astype(np.float32)}

        return dataclasses.replace(prompt, features=Features(features))

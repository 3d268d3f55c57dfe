"""Probe: what is asked of a network while it trains. It looks, and leaves everything as it was."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from normlab.store import Recipe


@dataclasses.dataclass(frozen=True)
class Look:
    """A network in training, at one moment, and a batch to ask it with."""

    model: nn.Module
    """In train mode. Whatever a probe does to its tensors, modes, gradients and hooks is taken back."""
    x: Tensor
    """(N, ...): the same training examples at every reading, on the model's device and in its dtype."""
    y: Tensor
    """(N,): their classes."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """Of logits and classes: the mean cross-entropy that training descends."""
    recipe: Recipe
    """Resolved: nothing in it is `auto`."""
    step: int
    """Optimizer steps done."""


class Probe(Protocol):
    """A frozen dataclass whose fields are JSON-able, so that a recipe can name it."""

    @property
    def every(self) -> int:
        """Optimizer steps between two readings, from before the first on; 0 reads before the first alone."""
        ...

    def __call__(self, look: Look, /) -> dict[str, float]:
        """The same names at every reading; inf and NaN are kept as None."""
        ...

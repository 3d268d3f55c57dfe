"""What a stage is made of, apart from its tensors."""

import dataclasses
from typing import Literal, get_args

Activation = Literal["none", "relu", "sigmoid", "tanh", "gelu", "gelu-tanh", "silu"]
Part = Literal["both", "mean", "variance"]
Pair = tuple[int, int]

_ACTIVATIONS = get_args(Activation)
_PARTS = get_args(Part)


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over windows, as torch's AvgPool2d and MaxPool2d without dilation and ceil mode."""

    kind: Literal["avg", "max"]
    size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    count_padding: bool = True
    """Whether an average counts the zeros around the image (`count_include_pad`)."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of a stage that is no tensor."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    before: Activation = "none"
    """Activation between the head and the norm."""
    norm: Literal["none", "batch", "fixed"] = "none"
    """By the batch's statistics, by given ones, or not at all."""
    eps: float = 1e-5
    activation: Activation = "none"
    pool: Pool | None = None
    part: Part = "both"
    """Which of the statistics the norm takes off."""

    geometry: tuple[int, ...] = dataclasses.field(init=False, repr=False, compare=False)
    """As the native convolution takes it."""
    numbers: tuple[int, ...] = dataclasses.field(init=False, repr=False, compare=False)
    """As the native epilogue takes it."""

    def __post_init__(self) -> None:
        pool = self.pool
        shape = (*pool.size, *pool.stride, *pool.padding, int(pool.count_padding)) if pool else (0,) * 7
        kind = ("avg", "max").index(pool.kind) + 1 if pool else 0
        activations = (_ACTIVATIONS.index(self.before), _ACTIVATIONS.index(self.activation))
        numbers = (*activations, _PARTS.index(self.part), kind, *shape)
        object.__setattr__(self, "geometry", (*self.stride, *self.padding))
        object.__setattr__(self, "numbers", numbers)

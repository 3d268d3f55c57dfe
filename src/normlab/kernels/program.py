"""A chain of stages as its native ops take it: a list of whole numbers, and a list of factors."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from normlab.kernels.settings import Pair, Settings

Head = Literal["none", "conv2d", "linear"]
Tracking = Literal["none", "finite", "always"]
_HEADS: tuple[Head, ...] = ("none", "conv2d", "linear")
_NORMS = ("none", "batch", "fixed")
_TRACKINGS: tuple[Tracking, ...] = ("none", "finite", "always")

INPUT = -1
"""The number of the chain's own input, among those of the stages."""
SAVED = 4
"""Tensors that the native op keeps of each stage; the first is its result."""


class Tensors(NamedTuple):
    """The tensors of one stage: as `stage` takes them, then what a batch norm keeps."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    gamma: Tensor | None = None
    beta: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    """Mean and variance: fixed ones, or the running ones that this batch moves."""
    tracked: Tensor | None = None
    """The number of batches so far, int64 of shape ()."""
    nonfinite: Tensor | None = None
    """The number of batches with an inf or NaN, int64 of shape ()."""
    residual: Tensor | None = None
    """Lanes of what is added, where it comes from outside of the chain."""
    mask: Tensor | None = None


GRADIENT_PLACES = (0, 1, 2, 3, 8)
"""Of the tensors that have gradients: weight, bias, gamma, beta, residual."""


class Numbers(NamedTuple):
    """The numbers of one stage, in the order of program.cpp; those of its sources follow them."""

    head: int
    stride: Pair
    padding: Pair
    before: int
    activation: int
    norm: int
    part: int
    pool: int
    pool_size: Pair
    pool_stride: Pair
    pool_padding: Pair
    count_padding: int
    tracking: int
    residual: int
    flatten: int
    needs_gradient: int
    sources: tuple[int, ...]


_FIXED = 21
"""Numbers of a stage before the count of its sources."""


@dataclasses.dataclass(frozen=True)
class Link:
    """All of one stage in a chain that is no tensor."""

    settings: Settings
    head: Head
    sources: tuple[int, ...] = (INPUT,)
    """The numbers of the stages whose results it takes, side by side along the channels."""
    flatten: bool = False
    """Whether its input (N, C, H, W) becomes (N, C * H * W)."""
    residual: int | None = None
    """The number of the stage before it whose result is added."""
    tracking: Tracking = "none"
    """Whether the running statistics move: not at all, unless the batch holds an inf or NaN, or always."""
    share: float = 0.0
    """The batch's share in them; below 0 the cumulative mean."""

    numbers: tuple[tuple[int, ...], tuple[int, ...]] = dataclasses.field(init=False, repr=False, compare=False)
    """Those before and after `needs_gradient`."""

    def __post_init__(self) -> None:
        before, activation, *rest = self.settings.numbers
        numbers = (
            _HEADS.index(self.head), *self.settings.geometry, before, activation, _NORMS.index(self.settings.norm),
            *rest, _TRACKINGS.index(self.tracking), -1 if self.residual is None else self.residual, int(self.flatten),
        )  # fmt: skip
        object.__setattr__(self, "numbers", (numbers, (len(self.sources), *self.sources)))


class Program(NamedTuple):
    """A chain without its tensors."""

    links: tuple[Link, ...]
    numbers: list[int]
    factors: list[float]


def written(links: Sequence[Link], needed: Sequence[bool]) -> Program:
    """`needed` says of each stage whether any of its own tensors needs a gradient."""
    numbers: list[int] = []
    factors: list[float] = []
    for link, needs in zip(links, needed, strict=True):
        before, after = link.numbers
        numbers += (*before, int(needs), *after)
        factors += (link.settings.eps, link.share)
    return Program(tuple(links), numbers, factors)


def read(numbers: Sequence[int]) -> Iterator[Numbers]:
    """The stages of a program, from its numbers."""
    at = 0
    while at < len(numbers):
        n = numbers[at : at + _FIXED]
        first = at + _FIXED + 1
        at = first + numbers[first - 1]
        yield Numbers(
            head=n[0],
            stride=(n[1], n[2]),
            padding=(n[3], n[4]),
            before=n[5],
            activation=n[6],
            norm=n[7],
            part=n[8],
            pool=n[9],
            pool_size=(n[10], n[11]),
            pool_stride=(n[12], n[13]),
            pool_padding=(n[14], n[15]),
            count_padding=n[16],
            tracking=n[17],
            residual=n[18],
            flatten=n[19],
            needs_gradient=n[20],
            sources=tuple(numbers[first:at]),
        )

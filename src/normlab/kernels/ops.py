"""The native ops: what torch must know of them beside their code, which is their results' shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normlab.kernels.program import GRADIENT_PLACES, INPUT, SAVED, Tensors, read
from normlab.kernels.settings import Pair

_FAKES: dict[str, Callable[..., Any]] = {}


def load(library: str) -> None:
    """Load the compiled ops and tell torch's tracers their shapes; once a process."""
    torch.ops.load_library(library)
    for name, fake in _FAKES.items():
        torch.library.register_fake(f"normlab::{name}")(fake)


def width() -> int:
    """Lanes of a vector here: 16, 8 or 4."""
    return torch.ops.normlab.width()


def _fake(function: Callable[..., Any]) -> Callable[..., Any]:
    _FAKES[function.__name__.lstrip("_")] = function
    return function


@_fake
def _pack(x: Tensor, index: Tensor | None, scale: float, shift: float) -> Tensor:
    lanes = width()
    count = len(x) if index is None else len(index)
    return x.new_empty(((count + lanes - 1) // lanes, *x.shape[1:], lanes), dtype=torch.float32)


@_fake
def _unpack(data: Tensor, count: int) -> Tensor:
    return data.new_empty((count, *data.shape[1:-1]))


@_fake
def _unpack_backward(gradient: Tensor) -> Tensor:
    return _pack(gradient, None, 1.0, 0.0)


def _sides(x: Tensor, window: Sequence[int], stride: Pair, padding: Pair) -> list[int]:
    """Of what a window gives, moved over lanes of images; nothing where x has features."""
    each = zip(x.shape[2:-1], window, stride, padding, strict=False)
    return [(length + 2 * pad - width) // step + 1 for length, width, step, pad in each]


@_fake
def _chain(
    x: Tensor, count: int, tensors: Sequence[Tensor], program: Sequence[int], factors: Sequence[float]
) -> list[Tensor]:
    saved: list[Tensor] = []
    lanes = x.shape[-1]
    for index, stage in enumerate(read(program)):
        sources = [x if source == INPUT else saved[SAVED * source] for source in stage.sources]
        value = sources[0] if len(sources) == 1 else torch.cat(sources, 1)
        if stage.flatten:
            value = value.flatten(1, -2)
        given = Tensors(*tensors[index * len(Tensors._fields) : (index + 1) * len(Tensors._fields)])
        y = value
        if stage.head:
            assert given.weight is not None
            windows = (given.weight.shape[2:], stage.stride, stage.padding)
            y = x.new_empty((value.shape[0], given.weight.shape[0], *_sides(value, *windows), lanes))
        channels = y.shape[1] if stage.norm == 1 else 0  # statistics of the batch
        value = y
        if stage.pool:
            sides = _sides(y, stage.pool_size, stage.pool_stride, stage.pool_padding)
            value = x.new_empty((*y.shape[:2], *sides, lanes))
        added = [each for each in (given.residual, given.mask) if each is not None and each.numel()]
        alone = not (stage.norm or stage.pool or stage.before or stage.activation or added or stage.residual >= 0)
        kept = x.new_empty(0) if alone or not stage.head else y
        saved += [torch.empty_like(value), kept, x.new_empty(channels), x.new_empty(channels)]
    return saved


@_fake
def _track(
    x: Tensor,
    count: int,
    tensors: Sequence[Tensor],
    saved: Sequence[Tensor],
    program: Sequence[int],
    factors: Sequence[float],
) -> None:
    """Gives nothing."""


@_fake
def _chain_backward(
    gradient: Tensor,
    x: Tensor,
    count: int,
    tensors: Sequence[Tensor],
    saved: Sequence[Tensor],
    program: Sequence[int],
    factors: Sequence[float],
    needs_x: bool,
) -> list[Tensor]:
    found = [torch.empty_like(x) if needs_x else x.new_empty(0)]
    for index, stage in enumerate(read(program)):
        given = Tensors(*tensors[index * len(Tensors._fields) : (index + 1) * len(Tensors._fields)])
        assert given.weight is not None
        assert given.residual is not None
        channels = saved[SAVED * index].shape[1]
        of_weight = stage.needs_gradient and given.weight.numel()
        sizes = (given.weight.shape, (channels,)) if of_weight else ((0,), (0,))
        found += [x.new_empty(size) for size in sizes]
        found += [x.new_empty(channels if stage.norm else 0) for _ in range(2)]
        found.append(torch.empty_like(given.residual))
    return found


@_fake
def _cross_entropy(logits: Tensor, count: int, targets: Tensor) -> tuple[Tensor, Tensor]:
    return logits.new_empty(2, dtype=torch.float64), torch.empty_like(logits)


@_fake
def _training_step(
    x: Tensor,
    count: int,
    targets: Tensor,
    tensors: Sequence[Tensor],
    program: Sequence[int],
    factors: Sequence[float],
    wanted: Sequence[int],
    owner: Sequence[int],
) -> list[Tensor]:
    places = [at for at in range(len(tensors)) if at % len(Tensors._fields) in GRADIENT_PLACES]
    of = {number: places[at] for at, number in reversed(list(zip(wanted, owner, strict=True)))}
    gradients = [torch.empty_like(tensors[of[number]]) for number in range(len(of))]
    return [x.new_empty(3, dtype=torch.float64), *gradients]

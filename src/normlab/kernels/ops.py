"""The native ops: what torch must know of them beside their code, which is their results' shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

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


def _side(length: int, kernel: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - kernel) // stride + 1


@_fake
def _chain(
    x: Tensor, count: int, tensors: Sequence[Tensor], program: Sequence[int], factors: Sequence[float]
) -> list[Tensor]:
    saved: list[Tensor] = []
    value, lanes = x, x.shape[-1]
    stages = len(factors) // 2
    numbers, size = len(program) // stages, len(tensors) // stages
    for index in range(stages):
        head, *geometry = program[index * numbers : index * numbers + 5]
        _, _, norm, pool, *windows = program[index * numbers + 5 : index * numbers + 15]
        if program[index * numbers + 18]:
            value = value.flatten(1, -2)
        given = tensors[index * size : (index + 1) * size]
        y = value
        if head:
            sides = [
                _side(value.shape[2 + i], given[0].shape[2 + i], geometry[i], geometry[2 + i])
                for i in range(value.dim() - 3)
            ]
            y = x.new_empty((value.shape[0], given[0].shape[0], *sides, lanes))
        channels = y.shape[1] if norm == 1 else 0  # statistics of the batch
        value = y
        if pool:
            sides = [_side(y.shape[2 + i], windows[i], windows[2 + i], windows[4 + i]) for i in (0, 1)]
            value = x.new_empty((*y.shape[:2], *sides, lanes))
        alone = not (
            norm
            or pool
            or any(program[index * numbers + 5 : index * numbers + 7])
            or given[8].numel()
            or given[9].numel()
            or program[index * numbers + 17] >= 0
        )
        kept = x.new_empty(0) if alone or not head else y
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
    stages = len(factors) // 2
    numbers, size = len(program) // stages, len(tensors) // stages
    for index in range(stages):
        given = tensors[index * size : (index + 1) * size]
        needed, norm = program[index * numbers + 19], program[index * numbers + 7]
        channels = saved[index * 4].shape[1]
        of_weight = [torch.empty_like(given[0]), x.new_empty(channels)] if needed and given[0].numel() else []
        found += of_weight or [x.new_empty(0), x.new_empty(0)]
        found += [x.new_empty(channels if norm else 0) for _ in range(2)]
        found.append(torch.empty_like(given[8]))
    return found

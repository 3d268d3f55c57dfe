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
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Sequence[int]) -> Tensor:
    height, width = (_side(x.shape[2 + i], weight.shape[2 + i], geometry[i], geometry[2 + i]) for i in (0, 1))
    return x.new_empty((x.shape[0], weight.shape[0], height, width, x.shape[-1]))


@_fake
def _conv2d_backward_input(
    gradient: Tensor, weight: Tensor, geometry: Sequence[int], height: int, width: int
) -> Tensor:
    return gradient.new_empty((gradient.shape[0], weight.shape[1], height, width, gradient.shape[-1]))


@_fake
def _conv2d_backward_weight(
    gradient: Tensor, x: Tensor, geometry: Sequence[int], kh: int, kw: int
) -> tuple[Tensor, Tensor]:
    outputs = gradient.shape[1]
    return x.new_empty((outputs, x.shape[1], kh, kw)), x.new_empty(outputs)


@_fake
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], x.shape[-1]))


@_fake
def _linear_backward_input(gradient: Tensor, weight: Tensor) -> Tensor:
    return gradient.new_empty((gradient.shape[0], weight.shape[1], gradient.shape[-1]))


@_fake
def _linear_backward_weight(gradient: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty((gradient.shape[1], x.shape[1])), x.new_empty(gradient.shape[1])


@_fake
def _statistics(y: Tensor, count: int, before: int) -> tuple[Tensor, Tensor]:
    return y.new_empty(y.shape[1]), y.new_empty(y.shape[1])


@_fake
def _epilogue(
    y: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    residual: Tensor | None,
    mask: Tensor | None,
    settings: Sequence[int],
) -> Tensor:
    if not settings[3]:
        return torch.empty_like(y)
    sides = (_side(y.shape[2 + i], settings[4 + i], settings[6 + i], settings[8 + i]) for i in (0, 1))
    return y.new_empty((*y.shape[:2], *sides, y.shape[-1]))


@_fake
def _epilogue_backward(
    gradient: Tensor,
    y: Tensor,
    count: int,
    mean: Tensor | None,
    var: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    residual: Tensor | None,
    mask: Tensor | None,
    settings: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    channels = 0 if mean is None else y.shape[1]
    return (
        torch.empty_like(y),
        y.new_empty(0) if residual is None else torch.empty_like(y),
        y.new_empty(channels),
        y.new_empty(channels),
    )

"""Every norm of the family, forward and backward in training, against torch.nn.BatchNorm2d, all in turns.

A pass is one reading or one writing of x: half of what it takes to copy it. No layer does with fewer than five:
x read and y written, then x and the gradient read and x's gradient written.
"""

import dataclasses
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normlab.bench.turns import Run, time_call
from normlab.errors import NormlabError, one_line
from normlab.nn import make_norm

REFERENCE = "torch.nn.BatchNorm2d"
FLOOR = 5
_COPY = "copy"


@dataclasses.dataclass(frozen=True)
class Timing:
    """Medians over the rounds: milliseconds of a step, its share of the reference's of the same round, passes."""

    ms: float
    vs_batch_norm: float
    passes: float
    floor_passes: int


def time_norms(names: Sequence[str], shape: Sequence[int], rounds: int, threads: int = 1) -> dict[str, Timing]:
    """Name to timing, the reference first; x (N, C, H, W) is float32. What a turn begins with is not timed.

    Raises NormlabError where a norm does not take such an x.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator).requires_grad_()
    gradient = torch.randn(*shape, generator=generator)
    layers = {REFERENCE: nn.BatchNorm2d(shape[1])} | {name: make_norm(name, shape[1], 2) for name in names}
    target = torch.empty_like(gradient)
    runs: dict[str, Run] = {_COPY: lambda: target.copy_(gradient)}
    runs |= {name: _step(name, layer, x, gradient) for name, layer in layers.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [{name: time_call(run) for name, run in runs.items()} for _ in range(rounds)]
    finally:
        torch.set_num_threads(before)
    return {
        name: Timing(
            ms=1e3 * statistics.median(turn[name] for turn in found),
            vs_batch_norm=statistics.median(turn[name] / turn[REFERENCE] for turn in found),
            passes=statistics.median(2 * turn[name] / turn[_COPY] for turn in found),
            floor_passes=0 if isinstance(layer, nn.Identity) else FLOOR,
        )
        for name, layer in layers.items()
    }


def _step(name: str, layer: nn.Module, x: Tensor, gradient: Tensor) -> Run:
    wanted = [x, *layer.parameters()]

    def step() -> None:
        try:
            torch.autograd.grad(layer(x), wanted, gradient, allow_unused=True)
        except Exception as error:  # a user's layer may raise anything
            raise NormlabError(f"{name} to normalize {tuple(x.shape)}", one_line(error)) from error

    return step

"""half_precision: what a norm makes of float16 or bfloat16, against itself in float64."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.measure.reading import copy_of

HALVES = (torch.float16, torch.bfloat16)
LARGE = 1000.0
"""Single values of this size are ordinary in the residual stream of a trained transformer: Sun et al. 2024,
arXiv 2402.17762, section 2. The square of it is no float16.
"""
_VALUES = 2**16
"""In a sample at least, so that its root mean square error is the layer's and not the draw's."""


@dataclasses.dataclass(frozen=True)
class HalfPrecision:
    """One layer, asked with samples of its own."""

    dtype: torch.dtype
    survives_zeros: bool
    """Whether an example of zeros gives finite numbers, as it does in float64."""
    survives_large: bool
    """Whether an example with values up to LARGE gives what it gives in float64: to 0.5, where about 1 comes out."""
    roundings: float
    """Root mean square error on normal numbers over that of rounding the result once; 1 where that loses nothing."""


def half_precision(norm: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> HalfPrecision:
    """Ask a copy of the layer, with weights drawn from [0.5, 2] (at 1 their product would round nothing).

    Args:
        norm: a layer of one tensor, the same in training and under evaluation.
        shape: of an input that it takes; the first dimension may be another.
        dtype: float16 or bfloat16, of the input.

    Raises:
        NormlabError: where it does not give numbers in float64 either, or no tensor of the input's shape.

    """
    generator = torch.Generator().manual_seed(0)
    half = copy_of(norm).cpu().eval()
    for name, parameter in half.named_parameters():
        if name.endswith("weight"):
            parameter.detach().copy_(_between(0.5, 2, parameter.shape, generator))
    exact = copy_of(half).double()
    examples = math.ceil(_VALUES / max(1, math.prod(shape[1:])))
    normal = torch.randn((examples, *shape[1:]), generator=generator)
    normal *= _between(0.5, 2, (*normal.shape[:-1], 1), generator)  # or 1 / rms is 1, and rounds nothing either
    with torch.no_grad():
        zeros, _ = _both(half, exact, torch.zeros_like(normal, dtype=dtype))
        large, wanted_large = _both(half, exact, (normal * (LARGE / normal.abs().max())).to(dtype))
        found, wanted = _both(half, exact, normal.to(dtype))
    once = _error(wanted.to(dtype), wanted)
    return HalfPrecision(
        dtype=dtype,
        survives_zeros=bool(zeros.isfinite().all()),
        survives_large=_error(large, wanted_large) < 0.5,
        roundings=_error(found, wanted) / once if once else 1.0,
    )


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _both(half: nn.Module, exact: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What both make of it, in float64."""
    found, wanted = half.forward(x), exact.forward(x.double())
    if not isinstance(found, Tensor) or found.shape != x.shape or not bool(wanted.isfinite().all()):
        raise NormlabError("a layer that gives finite numbers of its input's shape", f"a {type(half).__name__}")
    return found.double(), wanted.double()


def _error(found: Tensor, wanted: Tensor) -> float:
    return (found.double() - wanted).square().mean().sqrt().item()

"""Facts of the norms of each example by itself: layer, RMS, group and instance normalization."""

import torch

from normlab.errors import NormlabError
from normlab.measure.half_precision import HALVES, HalfPrecision, half_precision
from normlab.measure.norms import Norm
from normlab.measure.passes import Pass, Use

_FAMILIES = ("layer", "rms", "group", "instance")


def example_norms(norms: dict[str, Norm]) -> dict[str, Norm]:
    """Those of each example by itself, by path."""
    return {path: norm for path, norm in norms.items() if norm.family in _FAMILIES}


def example_norm_uses(example_norms: dict[str, Norm], evaluation: Pass) -> dict[str, Use]:
    """The first use of each under evaluation, by path, in the order of the calls; none of those without an input."""
    first: dict[str, Use] = {}
    for use in evaluation.uses:
        if use.path in example_norms and use.input is not None:
            first.setdefault(use.path, use)
    return first


def half_norms(example_norms: dict[str, Norm], example_norm_uses: dict[str, Use]) -> dict[str, HalfPrecision]:
    """What each makes of half precision, of those that are given it; layers of the same kind are asked once."""
    asked: dict[tuple[object, ...], HalfPrecision | None] = {}
    found: dict[str, HalfPrecision] = {}
    for path, use in example_norm_uses.items():
        norm, x = example_norms[path], use.input
        # Without an eps of its own a layer takes one for the dtype, which in float64 is another.
        if x is None or x.dtype not in HALVES or norm.eps is None:
            continue
        kind = type(norm.module), repr(norm.module), norm.eps, x.shape[1:], x.dtype
        if kind not in asked:
            asked[kind] = _asked(norm, x.shape, x.dtype)
        result = asked[kind]
        if result is not None:
            found[path] = result
    return found


def _asked(norm: Norm, shape: tuple[int, ...], dtype: torch.dtype) -> HalfPrecision | None:
    try:
        return half_precision(norm.module, shape, dtype)
    except (NormlabError, RuntimeError, TypeError):  # takes more than a tensor, or no float64
        return None

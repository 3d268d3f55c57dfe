"""The module door onto `norms/`: layers with torch.nn's signatures, and `make_norm`, which makes any by name."""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from torch import nn

import normlab.norms
from normlab.errors import NormlabError, choose, is_reference, load, one_line, parameters_of
from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normlab.norms.cholesky import Cholesky1d, Cholesky2d, Cholesky3d
from normlab.norms.domain import DomainBatchNorm1d, DomainBatchNorm2d, DomainBatchNorm3d, in_domain
from normlab.norms.frn import FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d
from normlab.norms.frozen import FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d
from normlab.norms.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from normlab.norms.group import GroupNorm
from normlab.norms.instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normlab.norms.layer import LayerNorm1d, LayerNorm2d, LayerNorm3d
from normlab.norms.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d
from normlab.norms.newton_schulz import NewtonSchulz1d, NewtonSchulz2d, NewtonSchulz3d
from normlab.norms.noisy import NoisyBatchNorm1d, NoisyBatchNorm2d, NoisyBatchNorm3d
from normlab.norms.normality import (
    NoisyNormality1d,
    NoisyNormality2d,
    NoisyNormality3d,
    Normality1d,
    Normality2d,
    Normality3d,
)
from normlab.norms.pit import PIT1d, PIT2d, PIT3d
from normlab.norms.rank_pit import RankPIT1d, RankPIT2d, RankPIT3d
from normlab.norms.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from normlab.norms.rms import RMSNorm1d, RMSNorm2d, RMSNorm3d
from normlab.norms.synchronized import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d
from normlab.norms.tanh import DynamicTanh1d, DynamicTanh2d, DynamicTanh3d
from normlab.norms.variance_only import VarianceOnlyBatchNorm1d, VarianceOnlyBatchNorm2d, VarianceOnlyBatchNorm3d
from normlab.norms.weight_standardization import (
    StandardizedConv1d,
    StandardizedConv2d,
    StandardizedConv3d,
    StandardizedLinear,
)
from normlab.norms.zca import PCA1d, PCA2d, PCA3d, ZCA1d, ZCA2d, ZCA3d

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "Cholesky1d",
    "Cholesky2d",
    "Cholesky3d",
    "DomainBatchNorm1d",
    "DomainBatchNorm2d",
    "DomainBatchNorm3d",
    "DynamicTanh1d",
    "DynamicTanh2d",
    "DynamicTanh3d",
    "FilterResponseNorm1d",
    "FilterResponseNorm2d",
    "FilterResponseNorm3d",
    "FrozenBatchNorm1d",
    "FrozenBatchNorm2d",
    "FrozenBatchNorm3d",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm1d",
    "LayerNorm2d",
    "LayerNorm3d",
    "MeanOnlyBatchNorm1d",
    "MeanOnlyBatchNorm2d",
    "MeanOnlyBatchNorm3d",
    "NewtonSchulz1d",
    "NewtonSchulz2d",
    "NewtonSchulz3d",
    "NoisyBatchNorm1d",
    "NoisyBatchNorm2d",
    "NoisyBatchNorm3d",
    "NoisyNormality1d",
    "NoisyNormality2d",
    "NoisyNormality3d",
    "Normality1d",
    "Normality2d",
    "Normality3d",
    "PCA1d",
    "PCA2d",
    "PCA3d",
    "PIT1d",
    "PIT2d",
    "PIT3d",
    "RMSNorm1d",
    "RMSNorm2d",
    "RMSNorm3d",
    "RankPIT1d",
    "RankPIT2d",
    "RankPIT3d",
    "StandardizedConv1d",
    "StandardizedConv2d",
    "StandardizedConv3d",
    "StandardizedLinear",
    "SyncBatchNorm1d",
    "SyncBatchNorm2d",
    "SyncBatchNorm3d",
    "VarianceOnlyBatchNorm1d",
    "VarianceOnlyBatchNorm2d",
    "VarianceOnlyBatchNorm3d",
    "ZCA1d",
    "ZCA2d",
    "ZCA3d",
    "find_norm",
    "in_domain",
    "make_norm",
    "norm_names",
]

DIMENSIONS = (1, 2, 3)


def make_norm(name: str, num_features: int, dim: int, **options: Any) -> nn.Module:
    """A normalization layer for (N, num_features, *spatial) with `dim` spatial dimensions or, for dim 1, none.

    `name` is one of `norm_names()` ("none" is the identity), or the user's own layer class as
    pkg.module:callable, which gets `num_features` first, and `dim` if its signature has it.

    Raises NormlabError on an unknown name, an option the layer does not have, or what is no layer.
    """
    if dim not in DIMENSIONS:
        raise NormlabError("dim 1, 2 or 3", dim)
    layer = find_norm(name)[dim]
    if is_reference(name) and "dim" in parameters_of(layer):
        options = {"dim": dim, **options}
    try:
        made = layer(num_features, **options)
    except NormlabError:
        raise
    except Exception as error:
        raise NormlabError(f"{name}({num_features}) to make a layer", one_line(error), "mend its options") from error
    if not isinstance(made, nn.Module):
        raise NormlabError(f"{name} to make an nn.Module", f"a {type(made).__name__}")
    return made


def find_norm(name: str) -> dict[int, Callable[..., nn.Module]]:
    """{dim: layer class} of the normalization of this name; NormlabError if there is none."""
    if is_reference(name):
        return dict.fromkeys(DIMENSIONS, load(name, "a normalization layer"))
    return choose(_families(), name, "normalization", own=True)


def norm_names() -> list[str]:
    """Every name that `make_norm` knows."""
    return [*_families()]


@functools.cache
def _families() -> dict[str, dict[int, Callable[..., nn.Module]]]:
    """Name to {dim: layer class}, as each file of `norms/` states it in its FAMILY."""
    families: dict[str, dict[int, Callable[..., nn.Module]]] = {"none": dict.fromkeys(DIMENSIONS, nn.Identity)}
    for info in pkgutil.iter_modules(normlab.norms.__path__):
        module = importlib.import_module(f"normlab.norms.{info.name}")
        families |= getattr(module, "FAMILY", {})
    return families

"""Which modules of a model are meant by the name of a norm."""

from collections.abc import Callable, Mapping

from torch import nn
from torch.nn.parameter import is_lazy

from normlab import nn as ours
from normlab.errors import NormlabError
from normlab.norms.stateless import StatelessNorm
from normlab.norms.tracked import Tracked

BatchNorm = nn.modules.batchnorm._BatchNorm
"""Torch's and ours, any dimension, synchronized included."""
PLAIN = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(ours.BatchNorm1d, ours.BatchNorm2d, ours.BatchNorm3d),
)
"""Batch norm itself. What is derived from it does something else with a batch, which an exchange would drop."""
SYNCHRONIZED = (ours.SyncBatchNorm1d, ours.SyncBatchNorm2d, ours.SyncBatchNorm3d)
FROZEN = (ours.FrozenBatchNorm1d, ours.FrozenBatchNorm2d, ours.FrozenBatchNorm3d)
NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    StatelessNorm,
    Tracked,
)
"""Torch's and ours of any kind."""


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """Path to layer, in order of registration; a layer used under several names appears once."""
    return {path: module for path, module in model.named_modules() if isinstance(module, BatchNorm)}


def all_norms(model: nn.Module) -> dict[str, nn.Module]:
    """As `batch_norms`, of any kind."""
    return {path: module for path, module in model.named_modules() if isinstance(module, NORMS)}


SELECTIONS: dict[str, Callable[[nn.Module], Mapping[str, nn.Module]]] = {"batch": batch_norms, "all": all_norms}


def keeps_statistics(norm: nn.Module) -> bool:
    """Whether it has running statistics, for which evaluation needs no batch."""
    return bool(getattr(norm, "track_running_stats", False)) and getattr(norm, "running_mean", norm) is not None


def keeps_its_own(module: nn.Module) -> bool:
    """Whether it keeps running statistics and is no batch norm, so that its own code alone could recompute them."""
    return not isinstance(module, BatchNorm) and any(
        value.is_floating_point() and name.startswith(("running_", "moving_"))
        for name, value in module.named_buffers(recurse=False)
    )


def dimension(norm: nn.Module) -> int:
    """Spatial dimensions, as `make_norm` takes them: 1 for BatchNorm1d, 2 for BatchNorm2d and so on."""
    for dim, kind in ((1, nn.BatchNorm1d), (2, nn.BatchNorm2d), (3, nn.BatchNorm3d)):
        if isinstance(norm, kind):
            return dim
    return 2  # SyncBatchNorm takes any; images are what it is for


def is_shapeless(module: nn.Module) -> bool:
    """Whether a lazy layer in it still waits for its first batch."""
    return any(is_lazy(value) for value in (*module.parameters(), *module.buffers()))


def parents(model: nn.Module, path: str) -> list[tuple[nn.Module, str]]:
    """Every (parent, attribute) that holds the module at `path`: a shared one has several.

    Raises NormlabError for the root, which nothing holds.
    """
    if not path:
        raise NormlabError(
            "a norm inside a model",
            f"the model itself, a {type(model).__name__}",
            "wrap it: nn.Sequential(model)",
        )
    target = model.get_submodule(path)
    return [
        (parent, name) for parent in model.modules() for name, child in parent._modules.items() if child is target
    ]


def put(module: nn.Module, places: list[tuple[nn.Module, str]]) -> None:
    """Set a module at every place that `parents` found."""
    for parent, name in places:
        setattr(parent, name, module)

"""Which norms of a model a name means, torch's among them, and over which dimensions each of them works."""

import dataclasses

from torch import nn

from normlab.nn import DIMENSIONS, GroupNorm, find_norm
from normlab.surgery.find import BatchNorm, batch_norms, dimension
from normlab.surgery.last_dimension import LastDimension
from normlab.surgery.overlay import beneath

TORCHS: dict[str, tuple[type[nn.Module], ...]] = {
    "layer": (nn.LayerNorm,),
    "group": (nn.GroupNorm, GroupNorm),
    "instance": (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    "rms": (nn.RMSNorm,),
    "sync": (nn.SyncBatchNorm,),
}
"""What `find_norm` does not name. ("batch" is whatever derives from torch's.)"""
CONVOLUTIONS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a norm is given: (N, num_features, *spatial) with `dim` spatial dimensions or, for dim 1, none; with
    `last`, (*, num_features) of which each position is an example. `positions` says whether there can be any.
    """

    num_features: int
    dim: int
    positions: bool
    last: bool = False


def norms_named(model: nn.Module, name: str) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Path to norm of this name, torch's and ours, or of the user's class pkg.module:callable; and path to the
    reason why one that derives from them is not: its forward is its own, and may mean other dimensions.

    Raises NormlabError on a name that is none.
    """
    if name == "batch":
        return {**batch_norms(model)}, {}
    meant = (*TORCHS.get(name, ()), *(kind for kind in find_norm(name).values() if isinstance(kind, type)))
    norms, left = {}, {}
    for path, module in model.named_modules():
        kind = beneath(module)
        if kind in meant:
            norms[path] = module
        elif isinstance(module, meant):
            left[path] = f"is a {kind.__name__}, whose forward is its own"
    return norms, left


def layout_of(norm: nn.Module, model: nn.Module) -> Layout | str:
    """The layout of what a norm of the model is given, or why it cannot be told."""
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        width, *spatial = norm.normalized_shape
        if len(spatial) == 1:
            return f"normalizes {tuple(norm.normalized_shape)}, and does not say which of the two are channels"
        return Layout(width, len(spatial) or 1, positions=bool(spatial), last=not spatial)
    if any(norm.children()):
        return "holds norms of its own, of which one could be carried over and the others would be lost"
    channels = getattr(norm, "num_features", getattr(norm, "num_channels", None))
    if not isinstance(channels, int):
        return "does not say how many channels it has"
    dim = _dimension(norm, model)
    if dim is None:
        return "stands among convolutions of several dimensions, and does not say its own"
    return Layout(channels, dim, positions=dim > 1 or dim in _convolved(model))


def _dimension(norm: nn.Module, model: nn.Module) -> int | None:
    """The norm's own; for those that take any, that of all the model's convolutions."""
    if isinstance(norm, BatchNorm) and not isinstance(norm, nn.SyncBatchNorm):
        return dimension(norm)
    if any(norm is each.norm for each in model.modules() if isinstance(each, LastDimension)):
        return 1
    ending = beneath(norm).__name__[-2:]
    if ending in {f"{dim}d" for dim in DIMENSIONS}:
        return int(ending[0])
    found = _convolved(model)
    if len(found) > 1:
        return None
    if found:
        return found.pop()
    return 1 if any(isinstance(each, nn.Linear) for each in model.modules()) else 2


def _convolved(model: nn.Module) -> set[int]:
    return {dim for dim, kinds in CONVOLUTIONS.items() if any(isinstance(each, kinds) for each in model.modules())}

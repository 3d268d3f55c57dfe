"""Why a batch norm must not be folded into a layer: all that would make it another function in evaluation."""

from collections.abc import Sequence

from torch import nn

from normlab.nn import find_norm
from normlab.surgery.compose import channels_of, uneven
from normlab.surgery.find import BatchNorm
from normlab.surgery.flow import Link
from normlab.surgery.hooks import hooked_between

_NORM_BESIDE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}
"""What is derived from one of these layers may do anything."""

_FROZEN = {*find_norm("frozen").values()}
_BATCH_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm}.union(
    *(find_norm(name).values() for name in ("batch", "sync", "frozen", "ghost", "renorm", "noisy"))
)
"""All that are batch norm in evaluation, likewise."""


def depends(norm: BatchNorm) -> str | None:
    """Why the norm is no fixed map of each channel."""
    if type(norm) not in _BATCH_NORMS:
        return f"is a {type(norm).__name__}, whose forward is its own"
    if norm.running_mean is None or norm.running_var is None:
        return "keeps no running statistics: it depends on the batch in evaluation too"
    if norm.training and type(norm) not in _FROZEN:
        return "is in training mode, where it depends on the batch; call model.eval() first"
    return None


def differs(norm: BatchNorm, layer: nn.Module, *, behind: bool, rows: bool) -> str | None:
    """Why the layer cannot do the work of the norm behind it, or before it, as well.

    `rows` says that (N, C) goes over between them, in case the layer is linear.
    """
    kind = type(layer)
    if kind not in _NORM_BESIDE:
        return f"is a {kind.__name__}"
    if not {"weight", "bias"} <= set(layer._parameters):
        return "has a weight or bias that is no parameter"
    channels = channels_of(layer)[1 if behind else 0]
    if not isinstance(norm, _NORM_BESIDE[kind] | nn.SyncBatchNorm) or channels != norm.num_features:
        return f"has {channels} channels in another dimension than the {norm.num_features} of the norm"
    if kind is nn.Linear and not rows:
        return (
            "is linear, and it cannot be seen that (N, C) goes over: of (N, C, L) it takes the last dimension, "
            "the norm dimension 1; fold(rows=True) says that it is (N, C)"
        )
    return None if behind else uneven(layer)


def escapes(model: nn.Module, way: Sequence[Link]) -> str | None:
    """Why somebody else may see, or change, what goes over these links."""
    for link in way:
        if link.shared:
            return link.shared
        if not link.single:
            return f"{link.source} or {link.target} is called with more than one tensor"
        if hook := hooked_between(model, link.source, link.target):
            return f"{hook} has a hook"
    return None

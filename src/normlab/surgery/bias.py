"""remove_bias, add_bias: the bias of the layer before a batch norm, which the batch's mean absorbs.

Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2: "the bias b can be ignored".
"""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms
from normlab.surgery.flow import fed_by


@dataclasses.dataclass(frozen=True)
class remove_bias:
    """Remove the bias of every conv and linear layer that a batch norm follows directly; exact.

    In training the batch's mean absorbs any constant; for evaluation the bias is taken off the running mean,
    or, in a norm that keeps none, nothing is to be done. Undone, the bias comes back with its value.
    """

    def __call__(self, model: nn.Module) -> Changes:
        pairs, left = fed_by(model)
        changes = Changes(left=left)
        for norm_path, path in pairs.items():
            layer, norm = model.get_submodule(path), batch_norms(model)[norm_path]
            bias = layer.bias
            if not isinstance(bias, nn.Parameter):
                changes.left[path] = "has no bias"
                continue
            if not getattr(norm, "absorbs_bias", True):  # torch's do
                changes.left[path] = f"{norm_path} takes no mean off"
                continue
            layer.register_parameter("bias", None)
            back = _shift_running_mean(norm, -bias.detach())
            changes.record(path, f"bias removed; {norm_path} absorbs it", functools.partial(_undo, layer, bias, back))
        return changes


@dataclasses.dataclass(frozen=True)
class add_bias:
    """Give every conv and linear layer that a batch norm follows directly a bias of zeros, if it has none; exact."""

    def __call__(self, model: nn.Module) -> Changes:
        pairs, left = fed_by(model)
        changes = Changes(left=left)
        for norm_path, path in pairs.items():
            layer, norm = model.get_submodule(path), batch_norms(model)[norm_path]
            if layer.bias is not None:
                changes.left[path] = "has a bias"
                continue
            zeros = layer.get_parameter("weight").new_zeros(norm.num_features)
            layer.register_parameter("bias", nn.Parameter(zeros))
            changes.record(path, "a bias of zeros", functools.partial(layer.register_parameter, "bias", None))
        return changes


def _undo(layer: nn.Module, bias: nn.Parameter, back: Callable[[], None]) -> None:
    layer.register_parameter("bias", bias)
    back()


def _shift_running_mean(norm: BatchNorm, shift: Tensor) -> Callable[[], None]:
    """Add to the running mean; returns the way back: bit for bit, unless training has moved it since."""
    mean = norm.running_mean
    if mean is None:
        return lambda: None
    before = mean.clone()
    with torch.no_grad():
        mean += shift.to(mean.dtype)
    after = mean.clone()

    def back() -> None:
        with torch.no_grad():
            mean.copy_(before if torch.equal(mean, after) else mean - shift.to(mean.dtype))

    return back

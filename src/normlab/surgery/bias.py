"""remove_bias, add_bias: the bias of the layer before a batch norm, which the batch's mean absorbs.

Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2: "the bias b can be ignored".
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms
from normlab.surgery.flow import fed_by
from normlab.surgery.hooks import hooked_between
from normlab.surgery.options import with_options


@with_options
class remove_bias:
    """Remove the bias of every conv and linear layer that a batch norm follows directly; exact.

    In training the batch's mean absorbs any constant; for evaluation, and in a frozen norm, the bias is taken off the
    running mean, or, in a norm that keeps none, nothing is to be done. Beta stays as it is. Undone, the bias comes
    back with its value.

    Left, with the reason, are layers whose norm takes no mean off, that have a hook on the way to it, or of which
    either is of a class that may do anything. What a linear layer gives is taken to be (N, C) where its width is
    the norm's: in (N, C, C) the norm would absorb nothing.
    """

    def __call__(self, model: nn.Module) -> Changes:
        pairs, left = fed_by(model)
        changes = remove_biases(model, pairs)
        changes.left |= left
        return changes


@with_options
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


def remove_biases(model: nn.Module, pairs: dict[str, str]) -> Changes:
    """As `remove_bias`, for these norms alone: path of the norm to that of the layer before it."""
    changes = Changes()
    for norm_path, path in pairs.items():
        layer, norm = model.get_submodule(path), batch_norms(model)[norm_path]
        bias = layer.bias
        if not isinstance(bias, nn.Parameter):
            changes.left[path] = "has no bias"
            continue
        if not getattr(norm, "absorbs_bias", True):  # torch's do
            changes.left[path] = f"{norm_path} takes no mean off"
            continue
        if unknown := next((each for each in (layer, norm) if not _is_known(each)), None):
            changes.left[path] = f"a {type(unknown).__name__} has a forward of its own"
            continue
        if hook := hooked_between(model, path, norm_path):
            changes.left[path] = f"{hook} has a hook"
            continue
        layer.register_parameter("bias", None)
        back = _shift_running_mean(norm, -bias.detach())
        changes.record(path, f"bias removed; {norm_path} absorbs it", functools.partial(_undo, layer, bias, back))
    return changes


def _is_known(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.nn.", "normlab."))


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

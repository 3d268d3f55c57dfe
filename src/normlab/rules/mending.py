"""at, changed: a surgery at some places of a model alone, as rules ask for it."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normlab.measure.norms import EPS, Norm
from normlab.measure.running import untrained
from normlab.rules.facts.statistics import Statistic
from normlab.surgery import Changes, Surgery, freeze, regroup
from normlab.surgery.find import BatchNorm
from normlab.surgery.swap import exchange

USUAL_EPS = 1e-5
USUAL_MOMENTUM = 0.1
"""Torch's defaults."""
Mended = tuple[str, Callable[[], object]] | str
"""What was done and the way back; or why it was left."""


@dataclasses.dataclass(frozen=True)
class at:
    """Do at each of `paths` the surgery that `surgery` makes for the module there, and nowhere else.

    On an error the model is as before.
    """

    paths: tuple[str, ...]
    surgery: Callable[[nn.Module], Surgery]

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        with changes.or_nothing():
            for path in self.paths:
                module = model.get_submodule(path)
                done = self.surgery(module)(module)
                changes._undo.append(done.undo)
                changes.done |= {f"{path}.{inside}".strip("."): what for inside, what in done.done.items()}
                changes.left |= {f"{path}.{inside}".strip("."): why for inside, why in done.left.items()}
        return changes


@dataclasses.dataclass(frozen=True)
class changed:
    """Let `change(model, path)` mend the model at each of `paths`. On an error the model is as before."""

    paths: tuple[str, ...]
    change: Callable[[nn.Module, str], Mended]

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        with changes.or_nothing():
            for path in self.paths:
                mended = self.change(model, path)
                if isinstance(mended, str):
                    changes.left[path] = mended
                else:
                    changes.record(path, *mended)
        return changes


@dataclasses.dataclass(frozen=True)
class registered:
    """Make buffers of the `statistics` that the modules at `paths` keep otherwise."""

    paths: tuple[str, ...]
    statistics: tuple[Statistic, ...]

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path in dict.fromkeys(self.paths):
            module, held = model.get_submodule(path), [each for each in self.statistics if each.path == path]
            if not held:
                changes.left[path] = (
                    "the forward computes it within the graph: .detach() the batch's statistics there"
                )
                continue
            for each in held:
                delattr(module, each.name)
                module.register_buffer(each.name, each.value.detach())
            names = ", ".join(each.name for each in held)
            changes.record(path, f"{names} registered as buffers", functools.partial(_as_before, module, held))
        return changes


def _as_before(module: nn.Module, held: list[Statistic]) -> None:
    for each in held:
        delattr(module, each.name)
        setattr(module, each.name, each.value)


@dataclasses.dataclass(frozen=True)
class exchanged:
    """Put the norm called `target` in the place of those at `paths`, with all that `swap` carries over."""

    paths: tuple[str, ...]
    target: str

    def __call__(self, model: nn.Module) -> Changes:
        if "" in self.paths:
            return Changes(left={"": "is the model itself, and not in one"})
        return exchange(model, {path: model.get_submodule(path) for path in self.paths}, self.target, {})


def frozen(norm: nn.Module) -> Surgery:
    """`freeze("statistics")`, but not at those of a new layer, by which nothing would be normalized."""
    if isinstance(norm, BatchNorm) and untrained(norm):
        return lambda model: Changes(left={"": "its running statistics are those of a new layer: recalibrate first"})
    return freeze("statistics")


def undecayed(optimizer: Optimizer, norms: dict[str, Norm]) -> Surgery:
    """Take the parameters of these norms out of the weight decay of an optimizer."""
    own = {each for norm in norms.values() for each in (norm.weight, norm.bias)}
    decayed = [each for group in optimizer.param_groups if group.get("weight_decay") for each in group["params"]]
    return lambda model: regroup(optimizer, [each for each in decayed if each in own], weight_decay=0.0)


def ones(model: nn.Module, path: str) -> Mended:
    """Set the weight of the layer at a path to 1."""
    weight = model.get_submodule(path).get_parameter("weight")
    before = weight.detach().clone()
    _write(weight, torch.ones_like(before))
    return "its weight is 1", lambda: _write(weight, before)


def eps(value: float) -> Callable[[nn.Module, str], Mended]:
    """A change that gives a norm this eps, whatever it calls it."""

    def change(model: nn.Module, path: str) -> Mended:
        norm = model.get_submodule(path)
        name = next(name for name in EPS if hasattr(norm, name))
        before = getattr(norm, name)
        setattr(norm, name, value)
        return f"{name} {before:g} -> {value:g}", lambda: setattr(norm, name, before)

    return change


def no_bias(model: nn.Module, path: str) -> Mended:
    """Take the bias from the layer at a path."""
    layer = model.get_submodule(path)
    bias = layer.get_parameter("bias")
    layer.register_parameter("bias", None)
    return "bias removed", lambda: layer.register_parameter("bias", bias)


def full_precision(model: nn.Module, path: str) -> Mended:
    """Hold the parameters and buffers of a layer in float32."""
    layer = model.get_submodule(path)
    parameters = {name: value.data for name, value in layer.named_parameters(recurse=False)}
    buffers = dict(layer._buffers)
    for name, value in parameters.items():
        layer.get_parameter(name).data = value.float()
    layer._buffers.update(
        {name: value.float() for name, value in buffers.items() if value is not None and value.is_floating_point()}
    )

    def back() -> None:
        for name, value in parameters.items():
            layer.get_parameter(name).data = value
        layer._buffers.update(buffers)

    return "holds float32", back


def _write(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)

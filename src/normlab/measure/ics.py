"""ics: how far the gradient of each layer moves when the layers before it take their step.

Santurkar et al. 2018, arXiv 1805.11604, definition 2.1: with G the gradient of layer i's parameters now, and G' the
same once the layers 1 to i - 1, and they alone, have been updated, internal covariate shift is the l2 norm of G - G'.
"""

import dataclasses
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from normlab.measure.asking import Loss, asking, flat, same_draws, trained
from normlab.measure.layers import layers
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, outputs_of
from normlab.measure.stepping import descend
from normlab.surgery import evaluating


@dataclasses.dataclass(frozen=True)
class Shift:
    """Of the gradient of one layer."""

    distance: float
    """l2 norm of G - G'."""
    relative: float
    """The same over the l2 norm of G; NaN where that is 0."""
    cosine: float
    """Of the angle between G and G'; NaN where one is 0."""


def gradient_shift(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, lr: float, weight_decay: float = 0.0
) -> dict[str, Shift]:
    """Path to the shift of every affine layer's parameters but the first's, for a step of gradient descent on (x, y).

    Layers stand in order of execution; a norm's parameters step with the affine layer before it. The same dropout
    masks and noise serve throughout; the model stays as it is. Costs a forward and a backward pass a layer.

    Raises NormlabError where there is no affine layer.
    """
    with asking(model) as copy, same_draws(copy) as again:
        groups = _groups(copy, x)
        own = {path: trained(copy.get_submodule(path)) for path in groups}
        before = _values(copy)
        again()
        descend(copy, x, y, loss, lr=lr, weight_decay=weight_decay)
        after = _values(copy)
        _set(before)

        def gradient(paths: Iterable[str]) -> dict[str, Tensor]:
            again()
            wanted = {path: own[path] for path in paths}
            every = [parameter for parameters in wanted.values() for parameter in parameters]
            found = iter(torch.autograd.grad(loss(copy(x), y), every, materialize_grads=True))
            return {path: flat([next(found) for _ in parameters]).double() for path, parameters in wanted.items()}

        learning = [path for path in groups if own[path]]
        now = gradient(learning)
        shifts = {}
        for path, group in groups.items():
            if path in now and path != learning[0]:
                shifts[path] = _shift(now[path], gradient([path])[path])
            _set({parameter: after[parameter] for parameter in group})
    return shifts


def _groups(model: nn.Module, x: Tensor) -> dict[str, list[nn.Parameter]]:
    """Path of each affine layer, in order of execution, to the trained parameters that step with it, each once."""
    holders = {path: module for path, module in model.named_modules() if [*module.parameters(recurse=False)]}
    affine = layers(model, "affine")
    with torch.no_grad(), evaluating(model), outputs_of(holders, lambda _: None) as used:
        model(x)
    groups: dict[str, list[nn.Parameter]] = {}
    group: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for path in used:
        if path in affine:
            group = [] if groups else group  # what stands before the first layer steps with it
            groups[path] = group
        group += [each for each in holders[path].parameters(recurse=False) if each.requires_grad and each not in seen]
        seen.update(group)
    return groups


def _shift(now: Tensor, later: Tensor) -> Shift:
    distance, length = (now - later).norm().item(), now.norm().item()
    cosine = (now @ later / (now.norm() * later.norm())).item()
    return Shift(distance, distance / (length or math.nan), cosine)


def _values(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    return {parameter: parameter.detach().clone() for parameter in trained(model)}


def _set(values: dict[nn.Parameter, Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in values.items():
            parameter.copy_(value)


@dataclasses.dataclass(frozen=True)
class ics(Reading):
    """`{path} distance`, `{path} relative` and `{path} cosine` between the gradient of a layer and what it becomes
    once the layers before it have stepped, by the recipe's learning rate and weight decay, without momentum, on as
    many examples as a batch of it has.
    """

    def __call__(self, look: Look) -> dict[str, float]:
        size, recipe = look.recipe.batch_size, look.recipe
        found = gradient_shift(
            look.model, look.x[:size], look.y[:size], look.loss, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        return {f"{path} {name}": value for path, each in found.items() for name, value in vars(each).items()}

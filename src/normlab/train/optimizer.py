"""The optimizer of a recipe, and its learning rate at every step."""

import functools
import inspect
import math
from collections.abc import Callable

import torch
from torch import nn

from normlab.store import Recipe

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Torch's own, in its fused implementation; norm parameters and biases apart, without weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": trained, "weight_decay": recipe.weight_decay}]
    if recipe.weight_decay and not recipe.decay_all:
        spared = _spared(model)
        groups = [
            {"params": [p for p in trained if p not in spared], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p in spared], "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    momentum = recipe.momentum if recipe.optimizer == "momentum" else 0.0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=momentum, fused=True)


def update_of(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Its step without torch's wrappers for profilers, compilers and hooks, which nobody here uses: they take a
    small network longer than the update.
    """
    return torch.no_grad()(functools.partial(inspect.unwrap(type(optimizer).step), optimizer))


def _spared(model: nn.Module) -> set[nn.Parameter]:
    """Parameters of norms, and vectors: biases, and the scales of norms that are nobody's class we know."""
    of_norms = {p for module in model.modules() if isinstance(module, NORMS) for p in module.parameters()}
    return of_norms | {parameter for parameter in model.parameters() if parameter.dim() < 2}


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of step `step`, from 0, of `steps`: a pure function, so that a resumed run needs no state.

    cosine: from lr to 0 (Loshchilov & Hutter 2017, 1608.03983). one-cycle: from lr/25 up to lr over the
    first 30 %, then down to lr/250000, both along half a cosine (Smith & Topin 2018, 1708.07120; torch's
    OneCycleLR with its defaults).
    """
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "cosine":
        return _half_cosine(recipe.lr, 0.0, step / steps)
    low, end = recipe.lr / 25, recipe.lr / 25 / 1e4
    peak = 0.3 * steps - 1
    if step <= peak:
        return _half_cosine(low, recipe.lr, step / peak)
    return _half_cosine(recipe.lr, end, (step - peak) / (steps - 1 - peak))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

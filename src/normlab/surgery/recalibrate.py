"""recalibrate: running statistics recomputed over the data, "precise batch norm".

Wu & Johnson 2021, arXiv 2105.07576, section 3. Running averages lag behind the weights; the statistics of
the whole population under the final weights do not.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.channels import moments
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms
from normlab.surgery.modes import evaluating

Batches = Callable[[], Iterable[Tensor]]


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Raised where a forward pass has been through the layer that is being measured."""


def recalibrate(model: nn.Module, batches: Batches) -> Changes:
    """Set the running statistics of every batch norm to those of all inputs that `batches()` yields.

    Layer by layer, in the order of their first use: each layer sees what evaluation will feed it, since the
    ones before it normalize with their new statistics already. Batches count by their size; the variance is
    the population's (biased); dropout and all else is in evaluation mode. Costs one forward pass, cut short
    behind the layer, for every batch norm.

    Args:
        model: any; its modes are put back.
        batches: called once for every layer, and once before; yields inputs of the model, at least one.

    Returns:
        Changes, with undo; `left` names norms without running statistics and those that no input reached.
        On an error the model is as before.

    """
    changes = Changes()
    norms = batch_norms(model)
    try:
        with torch.no_grad(), evaluating(model):
            uses = _uses(model, norms, batches)
            for path in uses:
                norm = norms[path]
                if norm.running_mean is None or norm.running_var is None:
                    changes.left[path] = "keeps no running statistics"
                    continue
                mean, var = _population(model, norm, uses[path], batches)
                before = norm.running_mean.clone(), norm.running_var.clone()
                changes.record(path, "running statistics recomputed", functools.partial(_write, norm, *before))
                _write(norm, mean, var)
    except BaseException:
        changes.undo()
        raise
    for path in norms.keys() - uses.keys():
        changes.left[path] = "no input reached it"
    return changes


def _uses(model: nn.Module, norms: dict[str, BatchNorm], batches: Batches) -> dict[str, int]:
    """Path to the number of its uses in one forward pass, in order of the first use."""
    uses: dict[str, int] = {}

    def count(path: str) -> Callable[..., None]:
        return lambda *_: uses.update({path: uses.get(path, 0) + 1})

    hooks = [norm.register_forward_pre_hook(count(path)) for path, norm in norms.items()]
    try:
        if norms:
            model(next(iter(batches())))
    finally:
        for hook in hooks:
            hook.remove()
    return uses


def _population(model: nn.Module, norm: BatchNorm, uses: int, batches: Batches) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of a norm's inputs over all batches and all its uses.

    Merged in float64 as in Chan, Golub & LeVeque 1983: never E[x^2] - E[x]^2.
    """
    total = mean = squares = torch.zeros((), dtype=torch.float64)
    seen = 0

    def collect(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal total, mean, squares, seen
        x, mask = (*arguments, keywords.get("mask"))[:2]
        count, batch_mean, batch_squares = (value.cpu().double() for value in moments(x, mask))
        shift = batch_mean - mean
        share = count / (total + count).clamp(min=1)
        mean = mean + shift * share
        squares = squares + batch_squares + shift.square() * total * share
        total = total + count
        seen += 1
        if seen == uses:
            raise _Enough

    hook = norm.register_forward_pre_hook(collect, with_kwargs=True)
    try:
        for x in batches():
            seen = 0
            try:
                model(x)
            except _Enough:
                continue
    finally:
        hook.remove()
    return mean, squares / total.clamp(min=1)


def _write(norm: BatchNorm, mean: Tensor, var: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)

"""recalibrate: running statistics recomputed over the data, "precise batch norm".

Wu & Johnson 2021, arXiv 2105.07576, section 3. Running averages lag behind the weights; the statistics of
the whole population under the final weights do not.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.norms.channels import moments
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms
from normlab.surgery.modes import evaluating

Batches = Callable[[], Iterable[Tensor]]


class _Enough(BaseException):
    """Raised where a forward pass has been through the layer that is being measured.

    No Exception: a model that catches those must not catch this one.
    """


def recalibrate(model: nn.Module, batches: Batches) -> Changes:
    """Set the running statistics of every batch norm to those of all inputs that `batches()` yields.

    Layer by layer, in the order of their first use: each layer sees what evaluation will feed it, since the
    ones before it normalize with their new statistics already. Batches count by their size; the variance is
    the population's (biased); dropout and all else is in evaluation mode. Costs one forward pass, cut short
    behind the layer, for every batch norm.

    Args:
        model: any; its modes are put back.
        batches: called once for every layer, and once before; yields inputs of the model. A loader that
            shuffles draws the same every time; torch's CPU generator goes back.

    Returns:
        Changes, with undo; `left` names norms without running statistics, those that no input or an inf or
        NaN reached, and frozen ones: in evaluation mode while the model is in train mode. On an error the
        model is as before.

    Raises:
        NormlabError: `batches` yields nothing.

    """
    changes = Changes()
    norms = batch_norms(model)
    frozen = {path for path, norm in norms.items() if model.training and not norm.training}
    try:
        with torch.no_grad(), evaluating(model):
            uses = _uses(model, norms, batches) if norms else {}
            for path in uses:
                norm = norms[path]
                if norm.running_mean is None or norm.running_var is None:
                    changes.left[path] = "keeps no running statistics"
                    continue
                if path in frozen:
                    changes.left[path] = "is frozen: in evaluation mode while the model is in train mode"
                    continue
                mean, var = _population(model, norm, uses[path], batches)
                if not torch.isfinite(mean + var).all():
                    changes.left[path] = "its inputs give no finite statistics"
                    continue
                before = norm.running_mean.clone(), norm.running_var.clone()
                changes.record(path, "running statistics recomputed", functools.partial(_write, norm, *before))
                _write(norm, mean, var)
    except BaseException:
        changes.undo()
        raise
    changes.left |= {path: "no input reached it" for path in norms if path not in uses}
    return changes


def _uses(model: nn.Module, norms: dict[str, BatchNorm], batches: Batches) -> dict[str, int]:
    """Path to the number of its uses in one forward pass, in order of the first use."""
    uses: dict[str, int] = {}

    def count(path: str) -> Callable[..., None]:
        return lambda *_: uses.update({path: uses.get(path, 0) + 1})

    hooks = [norm.register_forward_pre_hook(count(path)) for path, norm in norms.items()]
    try:
        with torch.random.fork_rng(devices=[]):
            first = next(iter(batches()), None)
            if first is None:
                raise NormlabError(
                    "a batch at least, to recompute statistics over", "none", "let each call begin anew"
                )
            model(first)
    finally:
        for hook in hooks:
            hook.remove()
    return uses


def _population(model: nn.Module, norm: BatchNorm, uses: int, batches: Batches) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of a norm's inputs over all batches and all its uses; NaN where nothing counts.

    Merged in float64 as in Chan, Golub & LeVeque 1983: never E[x^2] - E[x]^2.
    """
    total = mean = squares = torch.zeros((), dtype=torch.float64)
    seen = 0

    def collect(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal total, mean, squares, seen
        given = dict(zip(("input", "mask"), arguments, strict=False)) | keywords
        moved = moments(given["input"], given.get("mask"))
        count, batch_mean, batch_squares = (value.cpu().double() for value in moved)
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
        with torch.random.fork_rng(devices=[]):
            for x in batches():
                seen = 0
                with contextlib.suppress(_Enough):
                    model(x)
    finally:
        hook.remove()
    return mean, squares / total


def _write(norm: BatchNorm, mean: Tensor, var: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)

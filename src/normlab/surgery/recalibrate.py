"""recalibrate: running statistics recomputed over the data, "precise batch norm".

Wu & Johnson 2021, arXiv 2105.07576, section 3. Running averages lag behind the weights; the statistics of
the whole population under the final weights do not.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.norms.channels import moments
from normlab.surgery.changes import Changes
from normlab.surgery.feed import Batches, Forward, feed, from_the_start, input_of, unwrapped
from normlab.surgery.find import BatchNorm, batch_norms, keeps_its_own
from normlab.surgery.lanes_moments import moments_in_lanes
from normlab.surgery.modes import evaluating

Passes = Callable[[], Iterator[Callable[[], object]]]
"""Begins anew at each call, and yields what passes one batch through the model."""


class _Enough(BaseException):
    """Raised where a forward pass has been through the layer that is being measured.

    No Exception: a model that catches those must not catch this one.
    """


class _Population:
    """Count, mean and variance (C,) of all that was added, merged in float64 as in Chan, Golub & LeVeque 1983:
    never E[x^2] - E[x]^2. NaN where nothing counts.
    """

    def __init__(self) -> None:
        self.total = self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        """Merge what `moments` gave of one batch."""
        count, mean, squares = (value.cpu().double() for value in (count, mean, squares))
        shift = mean - self.mean
        share = count / (self.total + count).clamp(min=1)
        self.mean = self.mean + shift * share
        self.squares = self.squares + squares + shift.square() * self.total * share
        self.total = self.total + count

    @property
    def var(self) -> Tensor:
        """Biased: the population's."""
        return self.squares / self.total


def recalibrate(model: nn.Module, batches: Batches, *, at_once: bool = False, forward: Forward = feed) -> Changes:
    """Set the running statistics of every batch norm to those of all the batches.

    Layer by layer, in the order of their first use: each layer sees what evaluation will feed it, since the
    ones before it normalize with their new statistics already. Batches count by their size; the variance is
    the population's (biased); dropout and all else is in evaluation mode. Costs one forward pass, cut short
    behind the layer, for every batch norm. The count of batches that a running average with a momentum has seen
    begins anew.

    Args:
        model: any; its modes are put back.
        batches: a loader, a list, or a function that begins anew, of what `forward` takes; gone through once
            for every layer, and begun once before. A loader that shuffles by torch's CPU generator draws the same
            every time; the generator goes back.
        at_once: measure all layers in a single pass, in which each normalizes by the statistics of the batch
            at hand, as in training: what Wu & Johnson do. One pass for any number of layers; in small
            batches the layers behind see noisier inputs than evaluation will feed them; of a single batch the
            statistics are the same either way, where no norm is used twice.
        forward: `forward(model, batch)` passes a batch through the model. By default a batch is an input, a
            tuple or list that begins with one, as (x, y), or a mapping of the model's keyword arguments; it is
            moved to the model's device.

    Returns:
        Changes, with undo; `left` names norms without running statistics, those that no input or an inf or
        NaN reached, frozen ones (in evaluation mode while the model is in train mode), and layers that keep
        running statistics of another kind. On an error the model is as before.

    Raises:
        NormlabError: there is no batch, or an iterator that can be gone through but once.

    """
    begin, inner = from_the_start(batches), unwrapped(model)

    def passes() -> Iterator[Callable[[], object]]:
        return (functools.partial(forward, inner, batch) for batch in begin())

    changes = Changes()
    norms = batch_norms(model)
    frozen = {path for path, norm in norms.items() if model.training and not norm.training}
    try:
        with torch.no_grad(), evaluating(model):
            measured, reached = {}, set()
            for path, norm in norms.items():
                if norm.running_mean is None:
                    changes.left[path] = "keeps no running statistics"
                elif path in frozen:
                    changes.left[path] = "is frozen: in evaluation mode while the model is in train mode"
                else:
                    measured[path] = norm
            found = _at_once(measured, inner, begin, forward) if at_once else _layer_by_layer(measured, passes)
            for path, population in found:
                _set(changes, path, measured[path], population)
                reached.add(path)
    except BaseException:
        changes.undo()
        raise
    changes.left |= {path: "no input reached it" for path in measured if path not in reached}
    others = (path for path, module in model.named_modules() if keeps_its_own(module))
    changes.left |= dict.fromkeys(
        others, "keeps statistics that are not batch norm's: they stay as training left them"
    )
    return changes


def _layer_by_layer(norms: dict[str, BatchNorm], passes: Passes) -> Iterator[tuple[str, _Population]]:
    """Each norm that the first batch reaches, with its inputs, once those before it have their new statistics."""
    uses = _uses(norms, passes) if norms else {}
    for path, count in uses.items():
        yield path, _measure(norms[path], count, passes)


def _uses(norms: dict[str, BatchNorm], passes: Passes) -> dict[str, int]:
    """Path to the number of its uses in one forward pass, in order of the first use."""
    uses: dict[str, int] = {}

    def count(path: str) -> Callable[..., None]:
        return lambda *_: uses.update({path: uses.get(path, 0) + 1})

    with torch.random.fork_rng(devices=[]), _hooked({norm: count(path) for path, norm in norms.items()}):
        run = next(passes(), None)
        if run is None:
            raise _no_batch()
        run()
    return uses


def _no_batch() -> NormlabError:
    return NormlabError("a batch at least, to recompute statistics over", "none", "let each call begin anew")


def _measure(norm: BatchNorm, uses: int, passes: Passes) -> _Population:
    """A norm's inputs over all batches and all its uses; each pass ends behind the last of them."""
    population, seen = _Population(), 0

    def collect(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal seen
        population.add(*_moments(arguments, keywords))
        seen += 1
        if seen == uses:
            raise _Enough

    with torch.random.fork_rng(devices=[]), _hooked({norm: collect}):
        for run in passes():
            seen = 0
            with contextlib.suppress(_Enough):
                run()
    return population


def _at_once(
    norms: dict[str, BatchNorm], model: nn.Module, begin: Callable[[], Iterable[Any]], forward: Forward
) -> Iterator[tuple[str, _Population]]:
    """Each norm that a batch reaches, with its inputs, after one pass of all; meanwhile its statistics are those of
    the batch.
    """
    if not norms:
        return
    paths = {norm: path for path, norm in norms.items()}
    populations: dict[str, _Population] = {}
    kept = {norm: _statistics(norm) for norm in paths}

    def add(norm: BatchNorm, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        populations.setdefault(paths[norm], _Population()).add(count, mean, squares)

    def collect(norm: BatchNorm, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        count, mean, squares = _moments(arguments, keywords)
        add(norm, count, mean, squares)
        _write(norm, mean, squares / count.clamp(min=1))

    batch = None
    try:
        with torch.random.fork_rng(devices=[]):
            for batch in begin():
                in_lanes = moments_in_lanes(model, paths, input_of(batch)) if forward is feed else None
                if in_lanes is None:
                    with _hooked(dict.fromkeys(paths, collect)):
                        forward(model, batch)
                else:
                    for each in in_lanes:
                        add(*each)
    finally:
        for norm, statistics in kept.items():
            _write(norm, *statistics)
    if batch is None:
        raise _no_batch()
    yield from populations.items()


@contextlib.contextmanager
def _hooked(hooks: dict[BatchNorm, Callable[..., None]]) -> Iterator[None]:
    """With a hook in front of some norms."""
    handles = [norm.register_forward_pre_hook(hook, with_kwargs=True) for norm, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _moments(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    given = dict(zip(("input", "mask"), arguments, strict=False)) | keywords
    return moments(given["input"], given.get("mask"))


def _set(changes: Changes, path: str, norm: BatchNorm, population: _Population) -> None:
    if not torch.isfinite(population.mean + population.var).all():
        changes.left[path] = "its inputs give no finite statistics"
        return
    changes.record(path, "running statistics recomputed", functools.partial(_write, norm, *_statistics(norm)))
    _write(norm, population.mean, population.var)
    batches = norm.num_batches_tracked
    if batches is not None and norm.momentum is not None:
        changes._undo.append(functools.partial(batches.copy_, batches.clone()))
        batches.zero_()


def _statistics(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.clone(), norm.running_var.clone()


def _write(norm: BatchNorm, mean: Tensor, var: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)

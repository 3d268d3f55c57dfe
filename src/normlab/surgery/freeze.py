"""freeze: gamma, beta, the moving averages, or the use of batch statistics: each on its own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from normlab import nn as ours
from normlab.errors import choose
from normlab.norms import frozen
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms, dimension

_PLAIN: set[type[nn.Module]] = {getattr(room, f"BatchNorm{dim}d") for room in (nn, ours) for dim in ours.DIMENSIONS}


@dataclasses.dataclass(frozen=True)
class freeze:
    """Keep a part of every batch norm as it is while the rest trains.

    - "gamma", "beta", "affine" (both): they take no gradient; their values stay.
    - "averages": the running statistics are never updated again; training goes on with the batch's. Evaluation
      then uses whatever they hold.
    - "statistics": the running statistics are used in training too, and survive `model.train()`: batch
      normalization without the batch ("frozen BN").

    Raises NormlabError on any other part.
    """

    part: str

    def __post_init__(self) -> None:
        choose(_PARTS, self.part, "part of a batch norm")

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, norm in batch_norms(model).items():
            _PARTS[self.part](norm, path, changes)
        return changes


def _parameters(names: tuple[str, ...], norm: BatchNorm, path: str, changes: Changes) -> None:
    for name in names:
        parameter = getattr(norm, name)
        place = f"{path}.{name}" if path else name
        if parameter is None:
            changes.left[place] = "there is none"
        elif not parameter.requires_grad:
            changes.left[place] = "takes no gradient already"
        else:
            parameter.requires_grad_(False)
            changes.record(place, "takes no gradient", functools.partial(parameter.requires_grad_, True))


def _averages(norm: BatchNorm, path: str, changes: Changes) -> None:
    if norm.running_mean is None:
        changes.left[path] = "keeps no running statistics"
        return
    momentum = norm.momentum
    norm.momentum = 0.0
    changes.record(path, "running statistics are not updated", lambda: setattr(norm, "momentum", momentum))


def _statistics(norm: BatchNorm, path: str, changes: Changes) -> None:
    if norm.running_mean is None:
        changes.left[path] = "keeps no running statistics"
    elif type(norm) not in _PLAIN:
        changes.left[path] = f"is a {type(norm).__name__}, whose forward is its own"
    else:
        # Another class over the same object: hooks, optimizers and whoever holds the layer see no change.
        before = norm.__class__
        norm.__class__ = frozen.FAMILY["frozen"][dimension(norm)]
        changes.record(path, "running statistics in training too", lambda: setattr(norm, "__class__", before))


_PARTS: dict[str, Callable[[BatchNorm, str, Changes], Any]] = {
    "gamma": functools.partial(_parameters, ("weight",)),
    "beta": functools.partial(_parameters, ("bias",)),
    "affine": functools.partial(_parameters, ("weight", "bias")),
    "averages": _averages,
    "statistics": _statistics,
}

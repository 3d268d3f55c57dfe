"""freeze: gamma, beta, the moving averages, or the use of batch statistics: each on its own."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from normlab import nn as ours
from normlab.errors import choose
from normlab.norms import frozen
from normlab.surgery.changes import Changes
from normlab.surgery.find import FROZEN, SELECTIONS, dimension, is_shapeless, keeps_statistics
from normlab.surgery.options import with_options
from normlab.surgery.overlay import lay_over

_PLAIN: set[type[nn.Module]] = {getattr(room, f"BatchNorm{dim}d") for room in (nn, ours) for dim in ours.DIMENSIONS}


@with_options
class freeze:
    """Keep a part of every batch norm, or with `norms="all"` of every norm, as it is while the rest trains.

    - "gamma", "beta", "affine" (both): they take no gradient; their values stay.
    - "averages": the running statistics are never updated again; training goes on with the batch's. Evaluation
      then uses whatever they hold. (Their momentum is 0: a NaN batch still spoils those of torch's layers.)
    - "statistics": the running statistics are used in training too, and survive `model.train()`: batch
      normalization without the batch ("frozen BN"). Layers with a forward of their own, synchronized ones
      included, do in training what they do in evaluation.

    Raises NormlabError on any other part.
    """

    part: str
    norms: str = "batch"

    def __post_init__(self) -> None:
        choose(PARTS, self.part, "part of a norm")
        choose(SELECTIONS, self.norms, "selection of norms")

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, norm in SELECTIONS[self.norms](model).items():
            PARTS[self.part](norm, path, changes)
        return changes


class Evaluating(nn.Module):
    """A norm that does in training what it does in evaluation."""

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """The norm's own, in evaluation mode."""
        training = self.training
        try:
            self.training = False
            return super().forward(*arguments, **keywords)
        finally:
            self.training = training


def _parameters(names: tuple[str, ...], norm: nn.Module, path: str, changes: Changes) -> None:
    for name in names:
        parameter = getattr(norm, name, None)
        place = f"{path}.{name}" if path else name
        if parameter is None:
            changes.left[place] = "there is none"
        elif not parameter.requires_grad:
            changes.left[place] = "takes no gradient already"
        else:
            parameter.requires_grad = False  # as an attribute: the method refuses lazy parameters
            changes.record(place, "takes no gradient", functools.partial(setattr, parameter, "requires_grad", True))


def _averages(norm: nn.Module, path: str, changes: Changes) -> None:
    if not keeps_statistics(norm):
        changes.left[path] = "keeps no running statistics"
    elif norm.momentum == 0:
        changes.left[path] = "running statistics are not updated already"
    else:
        undo = functools.partial(setattr, norm, "momentum", norm.momentum)
        setattr(norm, "momentum", 0.0)  # noqa: B010  (any norm that has one)
        changes.record(path, "running statistics are not updated", undo)


def _statistics(norm: nn.Module, path: str, changes: Changes) -> None:
    if not keeps_statistics(norm):
        changes.left[path] = "keeps no running statistics"
    elif isinstance(norm, (*FROZEN, Evaluating)):
        changes.left[path] = "uses running statistics in training already"
    elif is_shapeless(norm):
        changes.left[path] = "is lazy and has not seen its first batch: run one through"
    elif type(norm) in _PLAIN:
        # Another class over the same object: hooks, optimizers and whoever holds the layer see no change.
        before = norm.__class__
        norm.__class__ = frozen.FAMILY["frozen"][dimension(norm)]
        changes.record(path, "running statistics in training too", lambda: setattr(norm, "__class__", before))
    else:
        changes.record(path, "running statistics in training too", lay_over(norm, Evaluating))


PARAMETERS = {"gamma": ("weight",), "beta": ("bias",), "affine": ("weight", "bias")}
PARTS: dict[str, Callable[[nn.Module, str, Changes], Any]] = {
    **{part: functools.partial(_parameters, names) for part, names in PARAMETERS.items()},
    "averages": _averages,
    "statistics": _statistics,
}

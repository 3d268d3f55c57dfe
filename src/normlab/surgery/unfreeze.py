"""unfreeze: the way back from `freeze`, and from what others do to freeze a norm."""

import functools

from torch import nn

from normlab import nn as ours
from normlab.errors import choose
from normlab.norms.running import check_settings
from normlab.surgery.changes import Changes
from normlab.surgery.find import FROZEN, SELECTIONS, dimension, keeps_statistics
from normlab.surgery.freeze import PARAMETERS, PARTS, Evaluating
from normlab.surgery.options import with_options
from normlab.surgery.overlay import take_off


@with_options
class unfreeze:
    """Let a part of every batch norm, or with `norms="all"` of every norm, train again, whoever froze it.

    - "gamma", "beta", "affine" (both): those that take no gradient do again.
    - "averages": a momentum of 0 becomes `momentum`, since nobody knows what it was before. (After a `freeze` of
      ours its `undo` does.)
    - "statistics": frozen batch norms of ours use the batch in training again. In a model in train mode so do the
      norms that were put in evaluation mode one by one.

    What was not frozen is not mentioned.

    Raises NormlabError on any other part, and for a momentum outside [0, 1].
    """

    part: str
    norms: str = "batch"
    momentum: float | None = 0.1

    def __post_init__(self) -> None:
        choose(PARTS, self.part, "part of a norm")
        choose(SELECTIONS, self.norms, "selection of norms")
        check_settings(0.0, self.momentum)

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, norm in SELECTIONS[self.norms](model).items():
            if self.part == "averages":
                self._averages(norm, path, changes)
            elif self.part == "statistics":
                if keeps_statistics(norm):
                    _statistics(norm, path, model.training, changes)
            else:
                _parameters(PARAMETERS[self.part], norm, path, changes)
        return changes

    def _averages(self, norm: nn.Module, path: str, changes: Changes) -> None:
        if getattr(norm, "momentum", None) == 0:
            undo = functools.partial(setattr, norm, "momentum", norm.momentum)
            setattr(norm, "momentum", self.momentum)  # noqa: B010  (any norm that has one)
            changes.record(path, f"momentum 0 -> {self.momentum}", undo)


def _parameters(names: tuple[str, ...], norm: nn.Module, path: str, changes: Changes) -> None:
    for name in names:
        parameter = getattr(norm, name, None)
        if parameter is not None and not parameter.requires_grad:
            parameter.requires_grad = True
            undo = functools.partial(setattr, parameter, "requires_grad", False)
            changes.record(f"{path}.{name}" if path else name, "takes a gradient", undo)


def _statistics(norm: nn.Module, path: str, model_trains: bool, changes: Changes) -> None:
    kind, training = norm.__class__, norm.training
    take_off(norm, Evaluating)
    if type(norm) in FROZEN:
        # `freeze` gives torch's layers our class, but not the count that ours keep.
        room = ours if "nonfinite_batches" in norm._buffers else nn
        norm.__class__ = getattr(room, f"BatchNorm{dimension(norm)}d")
    norm.training = training or model_trains

    def undo() -> None:
        norm.__class__, norm.training = kind, training

    if (norm.__class__, norm.training) != (kind, training):
        changes.record(path, "uses the batch in training", undo)

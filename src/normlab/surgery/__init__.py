"""Change the normalization of any nn.Module. A surgery is a small frozen dataclass that is called on a model:
it works in place and returns Changes: what changed, where, what it left and why, and how to undo it.
"""

from typing import Any

from normlab.errors import make_named, to_named
from normlab.surgery.adapt import adapt
from normlab.surgery.bias import add_bias, remove_bias
from normlab.surgery.changes import Changes, Surgery
from normlab.surgery.checkpoint_safe import checkpoint_safe
from normlab.surgery.dropout import dropout
from normlab.surgery.freeze import freeze
from normlab.surgery.keep import keep
from normlab.surgery.lanes_step import LanesStep, lanes_step
from normlab.surgery.modes import evaluating
from normlab.surgery.param_groups import ParamGroups, param_groups
from normlab.surgery.recalibrate import recalibrate
from normlab.surgery.reorder import reorder
from normlab.surgery.scale_init import scale_init
from normlab.surgery.swap import swap
from normlab.surgery.synchronize import synchronize
from normlab.surgery.to_lanes import to_lanes
from normlab.surgery.unfreeze import unfreeze

_BY_NAME: dict[str, type[Surgery]] = {
    each.__name__: each
    for each in (
        *(adapt, add_bias, checkpoint_safe, dropout, freeze, keep, remove_bias, reorder, scale_init, swap, unfreeze),
    )
}

__all__ = [
    "Changes",
    "LanesStep",
    "ParamGroups",
    "Surgery",
    "adapt",
    "add_bias",
    "checkpoint_safe",
    "dropout",
    "evaluating",
    "freeze",
    "from_plain",
    "keep",
    "lanes_step",
    "param_groups",
    "recalibrate",
    "remove_bias",
    "reorder",
    "scale_init",
    "swap",
    "synchronize",
    "to_lanes",
    "to_plain",
    "unfreeze",
]


def from_plain(plain: dict[str, Any]) -> Surgery:
    """The surgery that a recipe keeps as {"name": ..., and its arguments}; NormlabError if there is none."""
    return make_named(_BY_NAME, plain, "surgery")


def to_plain(surgery: Surgery) -> dict[str, Any]:
    """The surgery as a recipe keeps it, from which `from_plain` makes it again."""
    return to_named(surgery, _BY_NAME)

"""Change the normalization of any nn.Module. A surgery is a small frozen dataclass that is called on a model:
it works in place and returns Changes: what changed, where, what it left and why, and how to undo it.
"""

from typing import Any

from normlab.errors import make_named, to_named
from normlab.surgery.adapt import adapt
from normlab.surgery.adjust import adjust
from normlab.surgery.bias import add_bias, remove_bias
from normlab.surgery.changes import Changes, Surgery
from normlab.surgery.checkpoint_safe import checkpoint_safe
from normlab.surgery.dropout import dropout
from normlab.surgery.fold import fold
from normlab.surgery.freeze import freeze
from normlab.surgery.in_float32 import in_float32
from normlab.surgery.keep import keep
from normlab.surgery.lanes_step import LanesStep, lanes_step
from normlab.surgery.modes import evaluating
from normlab.surgery.param_groups import ParamGroups, param_groups
from normlab.surgery.recalibrate import recalibrate
from normlab.surgery.regroup import regroup
from normlab.surgery.reorder import reorder
from normlab.surgery.scale_init import scale_init
from normlab.surgery.stretch import stretch
from normlab.surgery.swap import swap
from normlab.surgery.synchronize import synchronize
from normlab.surgery.to_lanes import to_lanes
from normlab.surgery.unfreeze import unfreeze
from normlab.surgery.unshare import unshare

_BY_NAME: dict[str, type[Surgery]] = {
    each.__name__: each
    for each in (
        *(adapt, add_bias, adjust, checkpoint_safe, dropout, fold, freeze, in_float32, keep, remove_bias, reorder),
        *(scale_init, stretch, swap, unfreeze, unshare),
    )
}

__all__ = [
    "Changes",
    "LanesStep",
    "ParamGroups",
    "Surgery",
    "adapt",
    "add_bias",
    "adjust",
    "checkpoint_safe",
    "dropout",
    "evaluating",
    "fold",
    "freeze",
    "from_plain",
    "in_float32",
    "keep",
    "lanes_step",
    "param_groups",
    "recalibrate",
    "regroup",
    "remove_bias",
    "reorder",
    "scale_init",
    "stretch",
    "swap",
    "synchronize",
    "to_lanes",
    "to_plain",
    "unfreeze",
    "unshare",
]


def from_plain(plain: dict[str, Any]) -> Surgery:
    """The surgery that a recipe keeps as {"name": ..., and its arguments}; NormlabError if there is none."""
    return make_named(_BY_NAME, plain, "surgery")


def to_plain(surgery: Surgery) -> dict[str, Any]:
    """The surgery as a recipe keeps it, from which `from_plain` makes it again."""
    return to_named(surgery, _BY_NAME)

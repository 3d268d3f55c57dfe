"""Change the normalization of any nn.Module. A surgery is a small frozen dataclass that is called on a model:
it works in place and returns Changes: what changed, where, what it left and why, and how to undo it.
"""

import dataclasses
from typing import Any

from normlab.errors import NormlabError, choose
from normlab.surgery.bias import add_bias, remove_bias
from normlab.surgery.changes import Changes, Surgery
from normlab.surgery.dropout import dropout
from normlab.surgery.freeze import freeze
from normlab.surgery.keep import keep
from normlab.surgery.modes import evaluating
from normlab.surgery.recalibrate import recalibrate
from normlab.surgery.reorder import reorder
from normlab.surgery.scale_init import scale_init
from normlab.surgery.swap import swap

_BY_NAME: dict[str, type[Surgery]] = {
    each.__name__: each for each in (add_bias, dropout, freeze, keep, remove_bias, reorder, scale_init, swap)
}

__all__ = ["Changes", "Surgery", "evaluating", "from_plain", "recalibrate", "to_plain", *_BY_NAME]


def from_plain(plain: dict[str, Any]) -> Surgery:
    """The surgery that a recipe keeps as {"name": ..., and its arguments}; NormlabError if there is none."""
    arguments = dict(plain)
    name = arguments.pop("name", None)
    surgery = choose(_BY_NAME, name, "surgery")
    try:
        return surgery(**arguments)
    except TypeError as error:
        raise NormlabError(f"the arguments of {name}", str(error)) from error


def to_plain(surgery: Surgery) -> dict[str, Any]:
    """The surgery as a recipe keeps it, from which `from_plain` makes it again."""
    return {"name": type(surgery).__name__, **dataclasses.asdict(surgery)}  # type: ignore[call-overload]

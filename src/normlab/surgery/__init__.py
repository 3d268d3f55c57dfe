"""Change the normalization of any nn.Module. A surgery is a small frozen dataclass that is called on a model:
it works in place and returns Changes: what changed, where, what it left and why, and how to undo it.
"""

from typing import Any

from normlab.errors import NormlabError, choose
from normlab.surgery.changes import Changes, Surgery
from normlab.surgery.modes import evaluating
from normlab.surgery.recalibrate import recalibrate
from normlab.surgery.swap import swap

__all__ = ["Changes", "Surgery", "evaluating", "from_plain", "recalibrate", "swap"]

_BY_NAME: dict[str, type[Surgery]] = {"swap": swap}


def from_plain(plain: dict[str, Any]) -> Surgery:
    """The surgery that a recipe keeps as {"name": ..., and its arguments}; NormlabError if there is none."""
    arguments = dict(plain)
    name = arguments.pop("name", None)
    surgery = choose(_BY_NAME, name, "surgery")
    try:
        return surgery(**arguments)
    except TypeError as error:
        raise NormlabError(f"the arguments of {name}", str(error)) from error

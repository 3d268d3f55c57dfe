"""normlab: batch normalization, measured.

The names below are imported when they are first used, so that `import normlab` and `normlab --help` do not
load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normlab import functional, nn, surgery, testing, train
    from normlab.errors import NormlabError
    from normlab.notebook import study
    from normlab.rules.check import check
    from normlab.store import Recipe, Record, Runs
    from normlab.surgery.to_lanes import to_lanes

__version__ = "0.1.0"

__all__ = [
    "NormlabError",
    "Recipe",
    "Record",
    "Runs",
    "check",
    "functional",
    "nn",
    "study",
    "surgery",
    "testing",
    "to_lanes",
    "train",
]

_HOMES = {
    "NormlabError": "normlab.errors",
    "Recipe": "normlab.store",
    "Record": "normlab.store",
    "Runs": "normlab.store",
    "check": "normlab.rules",
    "study": "normlab.notebook",
    "to_lanes": "normlab.surgery",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'normlab' has no attribute {name!r}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    return importlib.import_module(f"normlab.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

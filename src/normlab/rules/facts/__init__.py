"""What rules ask for by name: every public function in the files of this folder is a fact, computed once for a model
from the facts that its own parameters name.

`Given` holds the facts that nothing computes: what the user handed over.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normlab.measure.passes import Batch


class Unknown(Exception):  # noqa: N818 - says of a fact that it cannot be had
    """Why a fact cannot be had of this model; the rules that ask for it are not asked."""


@dataclasses.dataclass(frozen=True)
class Given:
    """What a check is given; None and empty where it is not."""

    model: nn.Module
    batches: Sequence[Batch] = ()
    train: bool = False
    """Whether to train for one backward pass, and to ask what only that can tell."""
    optimizer: Optimizer | None = None
    real: bool = False
    """Whether the batches are of the data that the model was trained on."""


class Facts:
    """The facts of one model, each computed when it is first asked for, and kept."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self._known: dict[str, Any] = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}

    def ask(self, question: Callable[..., Any]) -> Any:
        """What a function says of the facts that its parameters name; raises Unknown if one cannot be had."""
        return question(**{name: self._get(name) for name in inspect.signature(question).parameters})

    def _get(self, name: str) -> Any:
        if name not in self._known:
            try:
                self._known[name] = self.ask(_makers()[name])
            except Unknown as reason:
                self._known[name] = reason
        known = self._known[name]
        if isinstance(known, Unknown):
            raise known
        return known


@functools.cache
def _makers() -> dict[str, Callable[..., Any]]:
    """Name to function, of every file of this folder."""
    makers: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(info.name)
        makers |= {
            name: value
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == info.name and not name.startswith("_")
        }
    return makers

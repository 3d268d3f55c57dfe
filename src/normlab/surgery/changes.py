"""Changes: what a surgery did to a model, what it left and why, and the way back."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import nn


@dataclasses.dataclass
class Changes:
    """What a surgery did. Truthy if it changed anything."""

    done: dict[str, str] = dataclasses.field(default_factory=dict)
    """Module path to what was done there."""
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    """Module path to why it was left as it is."""
    _undo: list[Callable[[], Any]] = dataclasses.field(default_factory=list, repr=False)

    def record(self, path: str, done: str, undo: Callable[[], Any]) -> None:
        """Note one change and the call that takes it back."""
        self.done[path] = done
        self._undo.append(undo)

    @contextlib.contextmanager
    def or_nothing(self) -> Iterator[None]:
        """Take back what was done so far if the block fails."""
        try:
            yield
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Give the model back as it was; a second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def __bool__(self) -> bool:
        return bool(self.done)


class Surgery(Protocol):
    """A frozen dataclass whose fields are JSON-able, called on a model."""

    def __call__(self, model: nn.Module, /) -> Changes: ...

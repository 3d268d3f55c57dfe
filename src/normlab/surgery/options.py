"""What surgeries have in common: options come first, the model behind them, as in `fold(rows=True)(model)`."""

import dataclasses
import functools
from typing import Any, TypeVar, dataclass_transform

from torch import nn

from normlab.errors import NormlabError

_Surgery = TypeVar("_Surgery")


@dataclass_transform(frozen_default=True)
def with_options(surgery: type[_Surgery]) -> type[_Surgery]:
    """A frozen dataclass of a surgery's options, which says so where it is given the model: `fold(model)` would
    otherwise be a surgery that nobody calls, and the model as it was.
    """
    made = dataclasses.dataclass(frozen=True)(surgery)
    initialize = made.__init__

    @functools.wraps(initialize)
    def checked(self: object, *options: Any, **named: Any) -> None:
        for each in (*options, *named.values()):
            if isinstance(each, nn.Module):
                name = surgery.__name__
                raise NormlabError(
                    f"options of {name}, and the model behind them",
                    f"a {type(each).__name__} among the options",
                    f"call {name}(...)(model)",
                )
        initialize(self, *options, **named)

    made.__init__ = checked  # type: ignore[method-assign]
    return made

"""A case: a model that trips a rule, and a near miss that does not. `rules/` has a table of them for every folder."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

Check = dict[str, Any]
"""What `check` is called with beside the model: batch, train, optimizer."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One rule's row."""

    id: str
    trips: Callable[[], nn.Module]
    spares: Callable[[], nn.Module]
    """As like it as can be, and nothing is wrong with it."""
    paths: tuple[str, ...]
    """Where the rule finds something in the first."""
    given: Callable[[nn.Module], Check] = lambda model: {}
    """What the check of either is given."""
    also: tuple[str, ...] = ()
    """Other rules that are right to find something in the first."""

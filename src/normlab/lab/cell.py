"""Cell: one arm with one seed, and the trials that speak for it."""

import dataclasses
import functools
from collections.abc import Mapping

from normlab.store import Recipe, Record

Found = Mapping[str, Record | str]
"""A recipe as JSON to its record, or to why there is none."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training that a plan wants."""

    arm: str
    recipe: Recipe
    decides: bool = True
    """Whether the arm is judged by it; a trial of a search is not."""

    @functools.cached_property
    def key(self) -> str:
        """The recipe as JSON, under which it is found."""
        return self.recipe.model_dump_json()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    seed: int
    records: tuple[Record, ...]
    """Of every trial, in order of the plan."""
    record: Record | None
    """Of the trial that the arm is judged by; None where that is unusable."""
    floor: float
    """The training accuracy below which a trial is unusable."""
    why_unusable: str | None = None
    """Where the deciding trial is."""
    beside: Mapping[str, Record] = dataclasses.field(default_factory=dict)
    """Every arm's usable deciding trial with this seed, this arm's own too."""
    step_seconds: float | None = None
    """Seconds of an optimizer step of this arm, measured by itself, where the study is timed."""

    def usable(self, record: Record) -> bool:
        """Whether a trial trained at all."""
        return unusable(record, self.floor) is None


def train_accuracy(record: Record) -> float:
    """At the end, under recomputed statistics; that of the last epoch where these are not there."""
    precise = record.result.precise
    if precise is not None and precise.train_accuracy is not None:
        return precise.train_accuracy
    return record.last.train_accuracy


def unusable(record: Record | str, floor: float) -> str | None:
    """Why a trial counts apart (failed, loss not finite, ended below the floor); None if it counts."""
    if isinstance(record, str):
        return f"failed: {record}"
    if broken := record.result.nonfinite:
        return f"the loss was not finite at epoch {broken.epoch}, step {broken.step}"
    if (reached := train_accuracy(record)) < floor:
        return f"training accuracy {reached:.3f}, below {floor:.3f}"
    return None

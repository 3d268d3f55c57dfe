"""Who watches a run, and how one is stopped."""

from pathlib import Path

from normlab.store import Epoch, Recipe
from normlab.train.progress import Sums


class Observer:
    """What is told of a run as it goes; override what you need."""

    def begin(self, recipe: Recipe, steps_per_epoch: int | None, epochs_done: int) -> None:
        """Before the first step: the resolved recipe, and how many epochs a checkpoint already held."""

    def step(self, sums: Sums) -> None:
        """After every step: the sums of the epoch so far."""

    def epoch(self, epoch: Epoch, examples_per_s: float) -> None:
        """After every epoch and its evaluation."""

    def recalibrating(self) -> None:
        """Before the statistics are recomputed."""

    def end(self) -> None:
        """After all of it, on an error too."""


class Stopped(Exception):  # noqa: N818 - a signal
    """A run was asked to stop, at a point from which it can go on."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """A run was asked to stop and has left a checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"stopped; the checkpoint is {checkpoint}")
        self.checkpoint = checkpoint

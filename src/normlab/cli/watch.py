"""What a person sees of a run: a live bar in a terminal, a line per epoch elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from normlab.store import Epoch, Recipe
from normlab.train import Observer
from normlab.train.progress import Sums

LOOK_SECONDS = 0.1
"""Between two updates of the bar: drawing at every step would cost what it shows."""


class _Lines(Observer):
    """A line per epoch."""

    def __init__(self, console: Console, begun: Callable[[], None]) -> None:
        self.console = console
        self.begun = begun
        self.epochs = 0

    def begin(self, recipe: Recipe, steps_per_epoch: int | None, epochs_done: int) -> None:
        self.begun()
        self.epochs = recipe.epochs
        self.console.print(
            f"{recipe.model} on {recipe.data}: {recipe.optimizer}, lr {recipe.lr:g}, batch {recipe.batch_size}, "
            f"{recipe.epochs} epochs, seed {recipe.seed}, {recipe.device}, {recipe.threads} threads"
        )

    def epoch(self, epoch: Epoch, examples_per_s: float) -> None:
        loss = "not finite" if epoch.train_loss is None else f"{epoch.train_loss:.3f}"
        accuracies = (
            f", {name} acc {value:.3f}"
            for name, value in (
                ("train", epoch.train_accuracy),
                ("validation", epoch.validation_accuracy),
                ("test", epoch.test_accuracy),
            )
            if value is not None
        )
        self.console.print(
            f"epoch {epoch.epoch}/{self.epochs}: loss {loss}{''.join(accuracies)}; {examples_per_s:.0f} examples/sec"
        )


class _Live(_Lines):
    """The same lines above a bar that moves with every step."""

    def __init__(self, console: Console, begun: Callable[[], None]) -> None:
        super().__init__(console, begun)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
            expand=True,
        )

    def begin(self, recipe: Recipe, steps_per_epoch: int | None, epochs_done: int) -> None:
        super().begin(recipe, steps_per_epoch, epochs_done)
        self.batch_size = recipe.batch_size
        self.steps_per_epoch = steps_per_epoch
        self.epochs_done = epochs_done
        self.next_look = 0.0
        total = steps_per_epoch and steps_per_epoch * recipe.epochs
        self.task = self.progress.add_task(
            self._title(), total=total, completed=(steps_per_epoch or 0) * epochs_done, numbers=""
        )
        self.progress.start()

    def step(self, sums: Sums) -> None:
        if (now := time.monotonic()) < self.next_look:
            return
        self.next_look = now + LOOK_SECONDS
        done = (self.steps_per_epoch or 0) * self.epochs_done + sums.steps
        numbers = f"loss {sums.loss / sums.examples:.3f}, acc {sums.correct / sums.examples:.3f}"
        speed = self.progress.tasks[0].speed
        if speed:
            numbers += f", {speed * self.batch_size:.0f} examples/sec"
        self.progress.update(self.task, completed=done, numbers=numbers)

    def epoch(self, epoch: Epoch, examples_per_s: float) -> None:
        super().epoch(epoch, examples_per_s)
        self.epochs_done = epoch.epoch
        if self.epochs_done < self.epochs:
            self.progress.update(self.task, description=self._title())

    def recalibrating(self) -> None:
        self.progress.update(self.task, description="recomputing the statistics", numbers="")

    def end(self) -> None:
        self.progress.stop()

    def _title(self) -> str:
        return f"epoch {self.epochs_done + 1}/{self.epochs}"


def observer_for(console: Console, begun: Callable[[], None]) -> Observer:
    """A live bar where the console is a terminal, lines where it is not; `begun` is called at the first step."""
    return (_Live if console.is_terminal else _Lines)(console, begun)

"""What a person sees while studies run: trials done, running and left, time left, and each verdict as it falls."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from normlab.data import Dataset
from normlab.lab.cell import Trial
from normlab.lab.cost import cost
from normlab.lab.run import Watcher
from normlab.store import Record, Verdict

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal."""


class Watch(Watcher):
    """A bar in a terminal, a line every half minute elsewhere; verdicts and failures as they come.

    `expected` is the cost of everything that is about to be run, as far as it is known before.
    """

    def __init__(self, console: Console, datasets: Mapping[str, Dataset], expected: float, workers: int) -> None:
        self.console = console
        self.datasets = datasets
        self.expected = expected
        self.workers = workers
        self.costs: dict[str, float] = {}
        self.done = self.failed = 0
        self.spent = 0.0
        self.started = self.spoke = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[told]}"),
            console=console, transient=True, expand=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("trials", total=1.0, told="")

    def __enter__(self) -> "Watch":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def wanted(self, trials: Mapping[str, Trial]) -> None:
        for key, trial in trials.items():
            self.costs[key] = cost(trial.recipe, self.datasets[trial.recipe.data])
        self._tell()

    def finished(self, trial: str, result: Record | str) -> None:
        self.done += 1
        self.spent += self.costs[trial]
        if isinstance(result, str):
            self.failed += 1
            self.console.print(f"trial {trial} failed: {result}")
        self._tell()

    def concluded(self, verdict: Verdict) -> None:
        self.console.print(f"{verdict.study}: {verdict.word}. {verdict.sentence}")

    def _tell(self) -> None:
        known = len(self.costs)
        running = min(self.workers, known - self.done)
        total = max(self.expected, sum(self.costs.values()))
        elapsed = time.monotonic() - self.started
        left = f", {_minutes(elapsed * (total - self.spent) / self.spent)} left" if self.spent else ""
        failed = f", {self.failed} failed" if self.failed else ""
        told = f"{self.done} done, {running} running, {known - self.done - running} left{failed}{left}"
        self.bar.update(self.task, completed=self.spent, total=max(total, 1e-9), told=told)
        if not self.console.is_terminal and time.monotonic() - self.spoke > LINE_SECONDS:
            self.spoke = time.monotonic()
            self.console.print(f"trials: {told}")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

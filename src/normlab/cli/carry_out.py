"""Carry studies out in front of a person: what it takes, then the trials, watched, then the verdicts."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from rich.console import Console

from normlab.cli.asking import Estimate, datasets_of, estimate, executor_of, show_estimate
from normlab.cli.signals import StopSignals
from normlab.cli.watch_study import Watch
from normlab.data import Dataset
from normlab.lab.ask import Ask, rehearse
from normlab.lab.run import run
from normlab.store import Runs, Verdict

if TYPE_CHECKING:
    from normlab.cli.study import Where


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Studies, who would do the work, and what it would take; nothing is written yet."""

    asks: Sequence[Ask]
    runs: Runs
    open_executor: Callable[[], Executor]
    workers: int
    datasets: Mapping[str, Dataset]
    estimated: Estimate
    rerun: bool


def prepare(asks: Sequence[Ask], runs: Runs, where: "Where", console: Console, *, rerun: bool = False) -> Prepared:
    """Find who works and what there is to do, and show it.

    Raises NormlabError, a dry run too, for an arm that would fail in every trial.
    """
    open_executor, workers = executor_of(where, asks, console.print)
    datasets = datasets_of(asks)
    estimated = estimate(asks, runs, datasets, workers, rerun=rerun)
    show_estimate(estimated, console, workers)
    for asked in asks:
        rehearse(asked)
    return Prepared(asks, runs, open_executor, workers, datasets, estimated, rerun)


def carry_out(prepared: Prepared, console: Console) -> list[Verdict]:
    """The verdicts, in the order in which they were asked for.

    SIGTERM ends it as Ctrl-C does, workers and all: what is done is in the store.
    """
    asks, runs, workers = prepared.asks, prepared.runs, prepared.workers
    runs.prepare()
    started = time.monotonic()
    with StopSignals(), Watch(console, prepared.datasets, prepared.estimated.cost, workers) as watch:
        verdicts = run(asks, runs, prepared.open_executor, workers, rerun=prepared.rerun, watcher=watch)
    console.print(f"{watch.done} trials in {time.monotonic() - started:.0f} s; records: {runs.path}")
    return verdicts

"""Carry studies out in front of a person: what it takes, then the trials, watched, then the verdicts."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from normlab.cli.asking import datasets_of, estimate, executor_of, show_estimate
from normlab.cli.signals import StopSignals
from normlab.cli.watch_study import Watch
from normlab.lab.ask import Ask, rehearse
from normlab.lab.run import run
from normlab.store import Runs, Verdict

if TYPE_CHECKING:
    from normlab.cli.study import Where


def carry_out(
    asks: Sequence[Ask],
    runs: Runs,
    where: "Where",
    console: Console,
    *,
    rerun: bool = False,
    dry_run: bool = False,
) -> list[Verdict]:
    """The verdicts, in the order of `asks`; none, and nothing written, in a dry run.

    SIGTERM ends it as Ctrl-C does, workers and all: what is done is in the store.
    """
    open_executor, workers = executor_of(where, asks, console.print)
    datasets = datasets_of(asks)
    estimated = estimate(asks, runs, datasets, workers, rerun=rerun)
    show_estimate(estimated, console, workers)
    if dry_run:
        return []
    for asked in asks:
        rehearse(asked)
    runs.prepare()
    started = time.monotonic()
    with StopSignals(), Watch(console, datasets, estimated.cost, workers) as watch:
        verdicts = run(asks, runs, open_executor, workers, rerun=rerun, watcher=watch)
    console.print(f"{watch.done} trials in {time.monotonic() - started:.0f} s; records: {runs.path}")
    return verdicts

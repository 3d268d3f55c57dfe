"""From names on a command line to studies that can be run, what they would take, and who runs them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from rich.console import Console

from normlab import data, studies
from normlab.cli.tables import print_table
from normlab.data import Dataset
from normlab.errors import NormlabError
from normlab.lab import executor, statistics
from normlab.lab.ask import Ask, ask, command, rehearse
from normlab.lab.cost import USUAL, cost, speed
from normlab.lab.run import Ids, missing
from normlab.store import Runs
from normlab.store.trial import machine

if TYPE_CHECKING:
    from normlab.cli.study import Where


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a study would take."""

    study: str
    there: int
    """Trials that the store has."""
    trials: int
    """Trials to run."""
    cost: float
    """Of them, in examples that BN-LeNet trains on."""
    decides: str
    """The smallest effects that it would find with 90 % power, in words."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What studies would take together."""

    studies: list[Taken]
    per_second: float
    """Cost that all workers do in a second."""

    @property
    def trials(self) -> int:
        return sum(each.trials for each in self.studies)

    @property
    def cost(self) -> float:
        return sum(each.cost for each in self.studies)

    @property
    def seconds(self) -> float:
        return self.cost / self.per_second

    def to_plain(self) -> dict[str, Any]:
        """As JSON holds it: for every study the trials that are there, those to run, and about how long they take."""
        return {
            each.study: {"there": each.there, "trials": each.trials, "seconds": round(each.cost / self.per_second, 1)}
            for each in self.studies
        }


def ask_all(names: Sequence[str], *, size: str, say: Callable[[str], None], **how: Any) -> list[Ask]:
    """The studies of these names at a size. `all` is every one that has it and that can be asked of what is given;
    `say` is told which others are left out, and why.

    Raises NormlabError if there is none, or where a study that was named cannot be asked.
    """
    everything = "all" in names
    asks, left = [], {}
    for name in studies.names() if everything else dict.fromkeys(names):
        study = studies.find(name)
        if everything and size not in study.sizes:
            continue
        try:
            asked = ask(name, study, size=size, command=command(name, size, how), **how)
            if everything and any(how.get(subject) for subject in ("model", "data_name", "norm")):
                rehearse(asked)
            asks.append(asked)
        except NormlabError as error:
            if not everything:
                raise
            left[name] = str(error)
    if not asks:
        raise NormlabError("a study that can be asked of this", f"none: {next(iter(left.values()))}")
    for name, why in left.items():
        say(f"left out: {name} ({why})")
    return asks


def datasets_of(asks: Sequence[Ask]) -> dict[str, Dataset]:
    """Every data set that the arms name, read."""
    names = {recipe.data for asked in asks for recipe in asked.arms.values()}
    return {name: data.load(name) for name in sorted(names)}


def estimate(
    asks: Sequence[Ask], runs: Runs, datasets: Mapping[str, Dataset], workers: int, *, rerun: bool = False
) -> Estimate:
    """Trials that are missing, and their time, as far as that is known before.

    A trial that two studies want counts once.
    """
    records = [record for _, record in runs.list() if record.recipe.data in datasets]
    per_second = speed(records, datasets, machine()) or USUAL
    studies: list[Taken] = []
    seen: set[str] = set()
    ids = Ids()
    for asked in asks:
        wanted, found = missing(asked, runs, rerun=rerun)
        new = [trial for trial in wanted if ids(trial) not in seen]
        seen.update(map(ids, new))
        costs = [cost(trial.recipe, datasets[trial.recipe.data]) for trial in new]
        expected = asked.study.plan.expected(len(asked.arms), asked.seeds) - len(found) - len(wanted)
        # What a plan wants later it wants of the kind that it wants now.
        later = max(expected, 0) * (sum(costs) / len(costs) if costs else 0.0)
        trials = len(new) + (max(expected, 0) if costs else 0)
        studies.append(Taken(asked.name, len(found), trials, sum(costs) + later, _decidable(asked)))
    return Estimate(studies, per_second * workers)


def _decidable(asked: Ask) -> str:
    """What "inconclusive" would mean, before the run: in units of the spread that the run will find."""
    factor = statistics.detectable(1.0, asked.seeds)
    return f"effects above {factor:.1f} sd" if factor < 100 else "nothing: give at least 2 seeds"


def show_estimate(estimated: Estimate, console: Console, workers: int) -> None:
    """Before a run: trials, time, and what can be decided (sd is that of the paired differences)."""
    header = ("study", "there", "trials", "about", "decides at 90 % power")
    rows = [
        (each.study, str(each.there), str(each.trials), f"{each.cost / estimated.per_second:.0f} s", each.decides)
        for each in estimated.studies
    ]
    print_table(header, rows)
    console.print(
        f"{estimated.trials} trials to run with {workers} workers, about {estimated.seconds / 60:.1f} minutes; "
        "sd is that of the paired differences"
    )


def executor_of(
    where: "Where", asks: Sequence[Ask], say: Callable[[str], None]
) -> tuple[Callable[[], Executor], int]:
    """Who works, and how many at a time; `say` is told if nobody does.

    Raises NormlabError for what does not fit together.
    """
    if where.workers is not None and where.workers < 1:
        raise NormlabError("--workers of at least 1", where.workers)
    if where.address is not None and where.backend != "dask":
        raise NormlabError("--backend dask with --address", where.backend)
    if where.executor is not None:
        return executor.named(where.executor), where.workers or executor.cores()
    if where.backend == "dask":
        if where.address is None:
            raise NormlabError("--address of a Dask scheduler", "none", "as --address tcp://127.0.0.1:8786")
        return executor.dask(where.address, say), where.workers or executor.dask_workers(where.address)
    gpus = 0
    if any(asked.base.device.startswith("cuda") for asked in asks):
        import torch

        gpus = torch.cuda.device_count()
    workers = where.workers or gpus or executor.cores()
    return executor.local(workers, gpus), workers

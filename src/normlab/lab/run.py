"""Run studies: the trials that the store lacks, in parallel, and the verdicts. Only here is the store written."""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor

from normlab.errors import one_line
from normlab.lab.ask import Ask
from normlab.lab.cell import Found, Trial
from normlab.lab.clock import timing, work_or_time
from normlab.lab.executor import Outcome, run_all
from normlab.lab.judge import Clock
from normlab.lab.verdict import verdict_of
from normlab.lab.worker import outcome
from normlab.store import Record, Runs, Verdict, trial_id
from normlab.store.trial import machine, versions


class Watcher:
    """Is told what happens; override what you need."""

    def wanted(self, trials: Mapping[str, Trial]) -> None:
        """Trials that the store lacks, by id, as they become known."""

    def finished(self, trial: str, result: Record | str) -> None:
        """A trial's record, or why there is none."""

    def concluded(self, verdict: Verdict) -> None:
        """A study has its verdict."""


class Ids:
    """The ids of trials; each is computed once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, trial: Trial) -> str:
        if trial.key not in self._known:
            self._known[trial.key] = trial_id(trial.recipe)
        return self._known[trial.key]


@dataclasses.dataclass
class _Job:
    """A study under way: what was found of the trials that it wants."""

    asked: Ask
    ids: Ids
    found: dict[str, Record | str] = dataclasses.field(default_factory=dict)
    lacks: dict[str, Trial] = dataclasses.field(default_factory=dict)

    def look(self, find: Callable[[Collection[str]], Mapping[str, Record | str]]) -> bool:
        """Take what can be found of the trials that the plan wants, as far as that leads; whether all is there."""
        while True:
            trials = self.asked.study.plan(self.asked.arms, self.asked.all_seeds, self.found)
            self.lacks = {self.ids(trial): trial for trial in trials if trial.key not in self.found}
            there = find(self.lacks) if self.lacks else {}
            if not there:
                return not self.lacks
            self.found |= {self.lacks[trial].key: result for trial, result in there.items()}


def run(
    asks: Sequence[Ask],
    runs: Runs,
    open_executor: Callable[[], Executor],
    workers: int,
    *,
    rerun: bool = False,
    watcher: Watcher | None = None,
) -> list[Verdict]:
    """Every study's verdict, kept in the store, in the order of `asks`.

    A trial that several studies want is run once, one that the store has is not run at all (unless `rerun`),
    and one that failed before is tried again. Whatever stops this loses the trials in flight alone.
    """
    watcher, ids = watcher or Watcher(), Ids()
    rules_before = {asked.key: runs.register(asked.key, asked.rules) for asked in asks}
    verdicts: dict[str, Verdict] = {}
    done: dict[str, Record | str] = {}
    waiting: dict[str, str] = {}
    known: set[str] = set()
    to_time: list[_Job] = []

    def find(trials: Collection[str]) -> Mapping[str, Record | str]:
        there = {trial: done[trial] for trial in trials if trial in done}
        return there if rerun else {**runs.find([trial for trial in trials if trial not in there]), **there}

    def conclude(job: _Job, clock: Clock) -> None:
        asked = job.asked
        verdict = verdict_of(asked, job.found, ids, rules_before[asked.key], clock, machine(), versions())
        runs.conclude(verdict)
        verdicts[asked.key] = verdict
        watcher.concluded(verdict)

    def advance(job: _Job) -> None:
        if job.look(find):
            if job.asked.study.timed:
                to_time.append(job)
            else:
                conclude(job, {})
        new = {trial: wanted for trial, wanted in job.lacks.items() if trial not in known}
        known.update(new)
        waiting.update({trial: wanted.key for trial, wanted in new.items()})
        watcher.wanted(new)

    def time_next() -> None:
        """The timed studies, one by one, as soon as no trial runs beside."""
        while to_time and len(done) == len(known):
            key = to_time[0].asked.key
            kept = None if rerun else runs.clock(key)
            if kept is None:
                waiting[f"time {key}"] = timing(to_time[0].asked.arms)
                return
            conclude(to_time.pop(0), json.loads(kept))

    jobs = [_Job(asked, ids) for asked in asks]
    for job in jobs:
        advance(job)
    time_next()
    for key, told in run_all(waiting, work_or_time, open_executor, workers):
        if key in known:
            takers = [job for job in jobs if key in job.lacks]
            done[key] = _keep(runs, key, takers[0].lacks[key], told)
            watcher.finished(key, done[key])
            for job in takers:
                advance(job)
        else:
            job = to_time.pop(0)
            conclude(job, _clock(job, runs, told))
        time_next()
    return [verdicts[asked.key] for asked in asks]


def missing(asked: Ask, runs: Runs, *, rerun: bool = False) -> tuple[list[Trial], Found]:
    """The trials that a study wants next and the store lacks, and what it has: nothing is run."""
    job = _Job(asked, Ids())
    job.look((lambda _: {}) if rerun else runs.find)
    return [*job.lacks.values()], job.found


def _clock(job: _Job, runs: Runs, told: Outcome) -> Clock:
    """The seconds of a step of each arm, kept in the store; {} where timing them failed."""
    if isinstance(told, Exception):
        return {}
    runs.keep_clock(job.asked.key, told)
    clock: Clock = json.loads(told)
    return clock


def _keep(runs: Runs, wanted: str, trial: Trial, told: Outcome) -> Record | str:
    result = one_line(told) if isinstance(told, Exception) else outcome(told)
    if isinstance(result, Record) and result.trial != wanted:
        result = f"the worker has another version of something than {versions()}: it made trial {result.trial}"
    if isinstance(result, Record):
        runs.add(result)
    else:
        runs.fail(wanted, trial.recipe, result)
    return result

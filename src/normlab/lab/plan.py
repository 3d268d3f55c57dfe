"""Plans: which trials a study wants, given those that are there. Pure: asked again until nothing new is wanted."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from normlab.lab.cell import Found, Trial, train_accuracy, unusable
from normlab.store import Recipe, Record

Arms = Mapping[str, Recipe]

STEP = math.sqrt(10)
"""Between two learning rates of a grid."""
SEARCHING: Mapping[str, Any] = {"evaluate": ("train", "validation"), "evaluate_epochs": False, "probes": ()}
"""The recipe of a trial by which a rate is chosen."""


def half_decades(lowest: int, highest: int) -> tuple[float, ...]:
    """The learning rates 10^(k / 2) for k from `lowest` to `highest`; those that a bisection from 1 tries too."""
    return tuple(_rounded(10 ** (k / 2)) for k in range(lowest, highest + 1))


class Plan(Protocol):
    """(the arms' recipes, the seeds, what was found) -> every trial that is wanted so far."""

    def __call__(self, arms: Arms, seeds: Sequence[int], found: Found, /) -> list[Trial]: ...

    def expected(self, arms: int, seeds: int, /) -> int:
        """About how many trials that will be."""
        ...


def floor_of(plan: Plan, arms: Arms, seeds: Sequence[int], found: Found) -> float:
    """Half the best training accuracy among the trials that the plan wants before anything is known."""
    first = [found.get(trial.key) for trial in plan(arms, seeds, {})]
    finite = [each for each in first if isinstance(each, Record) and not each.result.nonfinite]
    return 0.5 * max(map(train_accuracy, finite), default=0.0)


@dataclasses.dataclass(frozen=True)
class EveryArm:
    """Each arm with each seed."""

    def __call__(self, arms: Arms, seeds: Sequence[int], found: Found) -> list[Trial]:
        return [Trial(arm, _varied(recipe, seed=seed)) for seed in seeds for arm, recipe in arms.items()]

    def expected(self, arms: int, seeds: int) -> int:
        return arms * seeds


every_arm = EveryArm()


class BeforeTraining(EveryArm):
    """Each arm with each seed, asked before its first step: how it trains from there judges none of them."""

    def __call__(self, arms: Arms, seeds: Sequence[int], found: Found) -> list[Trial]:
        return [dataclasses.replace(trial, decides=False) for trial in super().__call__(arms, seeds, found)]


before_training = BeforeTraining()


@dataclasses.dataclass(frozen=True)
class tuned:
    """Each arm at the rate of the grid where it has the best mean validation accuracy, under recomputed statistics.

    The search uses the first `tuning_seeds` seeds and sees training and validation data alone; a rate with an
    unusable seed is out, and of two equal ones the smaller is taken. Data that nothing validates are judged by
    training accuracy.
    """

    rates: tuple[float, ...]
    tuning_seeds: int = 2

    def __call__(self, arms: Arms, seeds: Sequence[int], found: Found) -> list[Trial]:
        trials = [trial for arm, recipe in arms.items() for trial in self._search(arm, recipe, seeds)]
        if any(trial.key not in found for trial in trials):
            return trials
        floor = floor_of(self, arms, seeds, found)
        for arm, recipe in arms.items():
            best = max(self.rates, key=lambda rate: (self._score(recipe, rate, seeds, found, floor), -rate))
            trials += [Trial(arm, _varied(recipe, lr=float(best), seed=seed)) for seed in seeds]
        return trials

    def expected(self, arms: int, seeds: int) -> int:
        return arms * (len(self.rates) * min(self.tuning_seeds, seeds) + seeds)

    def _search(self, arm: str, recipe: Recipe, seeds: Sequence[int]) -> Iterator[Trial]:
        for rate in self.rates:
            for seed in seeds[: self.tuning_seeds]:
                yield Trial(arm, _searching(recipe, rate, seed), decides=False)

    def _score(self, recipe: Recipe, rate: float, seeds: Sequence[int], found: Found, floor: float) -> float:
        scores = []
        for seed in seeds[: self.tuning_seeds]:
            record = found[Trial("", _searching(recipe, rate, seed)).key]
            if isinstance(record, str) or unusable(record, floor):
                return -math.inf
            precise = record.result.precise
            validated = None if precise is None else precise.validation_accuracy
            scores.append(train_accuracy(record) if validated is None else validated)
        return sum(scores) / len(scores)


@dataclasses.dataclass(frozen=True)
class every_rate:
    """Each arm at each rate of the grid with each seed; all of them decide, none is chosen."""

    rates: tuple[float, ...]

    def __call__(self, arms: Arms, seeds: Sequence[int], found: Found) -> list[Trial]:
        return [
            Trial(arm, _varied(recipe, lr=float(rate), seed=seed))
            for seed in seeds
            for arm, recipe in arms.items()
            for rate in self.rates
        ]

    def expected(self, arms: int, seeds: int) -> int:
        return arms * seeds * len(self.rates)


@dataclasses.dataclass(frozen=True)
class bisection:
    """For each arm and seed the largest usable learning rate: on a grid of sqrt(10) from `start`, up while it is
    usable or down until it is, then `halvings` times the middle of the bracket, on a log scale.

    Usable is what ends at half the best training accuracy of the trials at `start` or above. Those alone are
    probed.
    """

    start: float
    halvings: int = 1
    lowest: float = 1e-3
    highest: float = 1e4

    def __call__(self, arms: Arms, seeds: Sequence[int], found: Found) -> list[Trial]:
        first = {
            (arm, seed): self._trial(arm, recipe, self.start, seed) for seed in seeds for arm, recipe in arms.items()
        }
        if any(trial.key not in found for trial in first.values()):
            return [*first.values()]
        floor = floor_of(self, arms, seeds, found)
        return [trial for (arm, seed) in first for trial in self._chain(arm, arms[arm], seed, found, floor)]

    def expected(self, arms: int, seeds: int) -> int:
        return arms * seeds * (3 + self.halvings)

    def _chain(self, arm: str, recipe: Recipe, seed: int, found: Found, floor: float) -> Iterator[Trial]:
        """Every trial up to the first whose outcome is not there yet."""
        low, high, rate = 0.0, math.inf, self.start
        halved = 0
        while True:
            trial = self._trial(arm, recipe, rate, seed)
            yield trial
            if trial.key not in found:
                return
            if unusable(found[trial.key], floor) is None:
                low = rate
            else:
                high = rate
            if high == math.inf:
                rate = low * STEP
            elif low == 0.0:
                rate = high / STEP
            elif halved < self.halvings:
                rate, halved = math.sqrt(low * high), halved + 1
            else:
                return
            rate = _rounded(rate)
            if not self.lowest <= rate <= self.highest:
                return

    def _trial(self, arm: str, recipe: Recipe, rate: float, seed: int) -> Trial:
        found = _searching(recipe, rate, seed)
        return Trial(arm, _varied(found, probes=recipe.probes) if rate == self.start else found)


def _searching(recipe: Recipe, rate: float, seed: int) -> Recipe:
    """A trial of a search: it never sees the test data, and nothing is probed nor evaluated before the end. Two
    searches that meet share it.
    """
    return _varied(recipe, lr=_rounded(rate), seed=seed, **SEARCHING)


def _varied(recipe: Recipe, **changes: Any) -> Recipe:
    """With what a plan varies, not validated again: a plan is asked whenever a trial is done, and validating took
    longer than all else that the process does which hands out the trials.
    """
    return recipe.model_copy(update=changes)


def _rounded(rate: float) -> float:
    """Since sqrt(10) twice is 10 only nearly: the same rate should be the same trial."""
    return float(f"{rate:.6g}")

"""Rules: when a claim counts as supported, written before the run.

A rule looks at outcomes by arm and seed and says `supported`, `contradicted` or `inconclusive`, with the
numbers that decided. The interval decides: supported if all of it lies where the claim says, contradicted
if all of it lies where the claim says it does not, inconclusive otherwise.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from normlab.lab import statistics

Word = Literal["supported", "contradicted", "inconclusive", "answered"]
Values = Mapping[str, Mapping[int, float]]
"""Arm to seed to the value of one measure; unusable trials are not in it."""
Outcomes = Mapping[str, Values]
"""Measure to its values."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a rule found: the word, the effect in the measure's own units, and how sure it is."""

    rule: str
    word: Word
    n: int
    effect: float
    low: float
    high: float
    p: float
    sign_flip: float | None = None
    detectable: float = math.inf
    """The smallest effect found with 90 % power, given the spread of these pairs."""


class Rule(Protocol):
    """Decides a claim from the outcomes of one measure."""

    measure: str

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding: ...

    def __str__(self) -> str: ...


def aligned(values: Values, *arms: str) -> list[list[float]]:
    """For each arm its values over the seeds that all of them have, in order of the seeds."""
    seeds = sorted(set.intersection(*(set(values.get(arm, {})) for arm in arms)))
    return [[values[arm][seed] for seed in seeds] for arm in arms]


def paired(values: Values, one: str, other: str) -> list[float]:
    """One - other for every seed that both have."""
    return [a - b for a, b in zip(*aligned(values, one, other), strict=True)]


def _beyond(rule: object, differences: Sequence[float], margin: float, level: float) -> Finding:
    """Supported where the interval lies above the margin, contradicted where it lies below."""
    found = statistics.interval(differences, level)
    word: Word = "supported" if found.low > margin else "contradicted" if found.high < margin else "inconclusive"
    return Finding(
        str(rule),
        word,
        found.n,
        found.mean,
        found.low,
        found.high,
        statistics.t_test(differences, margin),
        statistics.sign_flip([difference - margin for difference in differences]),
        statistics.detectable(found.sd, found.n, level),
    )


@dataclasses.dataclass(frozen=True)
class superior:
    """`better` exceeds `worse` by more than `margin`, paired by seed."""

    measure: str
    better: str
    worse: str
    margin: float = 0.0

    def __str__(self) -> str:
        return f"{self.measure}: {self.better} minus {self.worse} is above {self.margin:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        return _beyond(self, paired(outcomes[self.measure], self.better, self.worse), self.margin, level)


@dataclasses.dataclass(frozen=True)
class equivalent:
    """`one` and `other` differ by less than `margin` either way, paired by seed."""

    measure: str
    one: str
    other: str
    margin: float

    def __str__(self) -> str:
        return f"{self.measure}: {self.one} and {self.other} differ by less than {self.margin:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        differences = paired(outcomes[self.measure], self.one, self.other)
        found = statistics.interval(differences, level)
        word: Word = "inconclusive"
        if -self.margin < found.low and found.high < self.margin:
            word = "supported"
        elif found.low > self.margin or found.high < -self.margin:
            word = "contradicted"
        return Finding(
            str(self),
            word,
            found.n,
            found.mean,
            found.low,
            found.high,
            statistics.equivalence_test(differences, self.margin),
            statistics.sign_flip(differences),
            statistics.detectable(found.sd, found.n, level),
        )


@dataclasses.dataclass(frozen=True)
class ratio_at_least:
    """`more` is at least `ratio` times `less`, paired by seed, on a log scale; both must be positive."""

    measure: str
    more: str
    less: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.measure}: {self.more} is at least {self.ratio:g} times {self.less}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        logs = {
            arm: {seed: math.log(value) for seed, value in values.items() if value > 0}
            for arm, values in outcomes[self.measure].items()
        }
        found = _beyond(self, paired(logs, self.more, self.less), math.log(self.ratio), level)
        return dataclasses.replace(
            found,
            effect=math.exp(found.effect),
            low=math.exp(found.low),
            high=math.exp(found.high),
            detectable=math.exp(min(found.detectable, 700.0)),
        )


@dataclasses.dataclass(frozen=True)
class interaction:
    """(`a` - `b`) exceeds (`c` - `d`) by more than `margin`, paired by seed."""

    measure: str
    a: str
    b: str
    c: str
    d: str
    margin: float = 0.0

    def __str__(self) -> str:
        return f"{self.measure}: ({self.a} - {self.b}) minus ({self.c} - {self.d}) is above {self.margin:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        quartets = zip(*aligned(outcomes[self.measure], self.a, self.b, self.c, self.d), strict=True)
        return _beyond(self, [(a - b) - (c - d) for a, b, c, d in quartets], self.margin, level)


@dataclasses.dataclass(frozen=True)
class monotone:
    """The measure rises along the arms: its slope on the arm's number, fitted for each seed, is above 0."""

    measure: str
    arms: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.measure}: rises along {', '.join(self.arms)}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        """Effect: the mean slope, in the measure's units per arm."""
        curves = zip(*aligned(outcomes[self.measure], *self.arms), strict=True)
        return _beyond(self, [_slope(curve) for curve in curves], 0.0, level)


def _slope(values: Sequence[float]) -> float:
    center = (len(values) - 1) / 2
    weights = [number - center for number in range(len(values))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(w * w for w in weights)


@dataclasses.dataclass(frozen=True)
class near:
    """The mean of `arm` lies within `tolerance` of what the theory says, `value`."""

    measure: str
    arm: str
    value: float
    tolerance: float

    def __str__(self) -> str:
        return f"{self.measure}: {self.arm} is {self.value:g} within {self.tolerance:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        values = outcomes[self.measure].get(self.arm, {})
        beside = {self.measure: {self.arm: values, "theory": dict.fromkeys(values, self.value)}}
        found = equivalent(self.measure, self.arm, "theory", self.tolerance)(beside, level)
        return dataclasses.replace(
            found,
            rule=str(self),
            effect=found.effect + self.value,
            low=found.low + self.value,
            high=found.high + self.value,
        )


@dataclasses.dataclass(frozen=True)
class below:
    """The mean of every arm lies below `bound`."""

    measure: str
    bound: float

    def __str__(self) -> str:
        return f"{self.measure}: below {self.bound:g} in every arm"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        """The arm with the highest interval decides; that there are several is corrected for (Bonferroni)."""
        arms = [values for values in outcomes[self.measure].values() if values]
        if not arms:
            return Finding(str(self), "inconclusive", 0, math.nan, math.nan, math.nan, math.nan)
        corrected = 1 - (1 - level) / len(arms)
        found = [_beyond(self, [-value for value in values.values()], -self.bound, corrected) for values in arms]
        worst = min(found, key=lambda each: -math.inf if math.isnan(each.low) else each.low)
        return dataclasses.replace(worst, effect=-worst.effect, low=-worst.high, high=-worst.low)


@dataclasses.dataclass(frozen=True)
class ranks:
    """Over arms, the mean of `measure` and that of `predictor` are ordered alike: Spearman's rho above `at_least`."""

    measure: str
    predictor: str
    at_least: float

    def __str__(self) -> str:
        return f"{self.measure}: ranked as {self.predictor}, rank correlation above {self.at_least:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        """Effect: rho over the arms; n is their number."""
        x, y = outcomes[self.predictor], outcomes[self.measure]
        arms = [arm for arm in y if y[arm] and x.get(arm)]
        means = ([sum(each[arm].values()) / len(each[arm]) for arm in arms] for each in (x, y))
        rho, low, high = statistics.spearman(next(means), next(means), level)
        word: Word = (
            "supported" if low > self.at_least else "contradicted" if high < self.at_least else "inconclusive"
        )
        p = statistics.spearman_test(rho, len(arms), self.at_least)
        return Finding(str(self), word, len(arms), rho, low, high, p)


@dataclasses.dataclass(frozen=True)
class answered:
    """A proof, or a measurement without a claim: the numbers are the answer."""

    measure: str

    def __str__(self) -> str:
        return f"{self.measure}: measured; nothing was claimed"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> Finding:
        """Effect: the mean over all arms and seeds."""
        values = [value for arm in outcomes[self.measure].values() for value in arm.values()]
        found = statistics.interval(values, level)
        return Finding(str(self), "answered", found.n, found.mean, found.low, found.high, math.nan)

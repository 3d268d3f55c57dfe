"""Rules: when a claim counts as supported, written before the run.

A rule looks at outcomes by arm and seed and says `supported`, `contradicted` or `inconclusive`, with the
numbers that decided. The interval decides: supported if all of it lies where the claim says, contradicted
if all of it lies where the claim says it does not, inconclusive otherwise.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from normlab.lab import statistics
from normlab.store import Finding
from normlab.store.verdict import Scale, Word

Values = Mapping[str, Mapping[int, float]]
"""Arm to seed to the value of one measure; unusable trials are not in it."""
Outcomes = Mapping[str, Values]
"""Measure to its values."""


class Rule(Protocol):
    """Decides a claim from the outcomes of a measure: once or, in a family, several times."""

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that it needs."""
        ...

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it needs; none if any will do."""
        ...

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]: ...

    def __str__(self) -> str: ...


def aligned(values: Values, arms: Sequence[str]) -> list[list[float]]:
    """For each arm its values over the seeds that all of them have, in order of the seeds."""
    seeds = sorted(set.intersection(*(set(values.get(arm, {})) for arm in arms)))
    return [[values[arm][seed] for seed in seeds] for arm in arms]


class _OfOneMeasure:
    """What most rules have in common: the one measure that they look at."""

    measure: str
    scale: ClassVar[Scale] = "difference"

    @property
    def measures(self) -> tuple[str, ...]:
        return (self.measure,)

    def _finding(self, word: Word, n: int, effect: float, low: float, high: float, p: float, **more: Any) -> Finding:
        """What is no finite number is None: JSON has none."""
        numbers = {"effect": effect, "low": low, "high": high, "p": p, **more}
        finite = {
            name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()
        }
        return Finding(rule=str(self), measure=self.measure, word=word, scale=self.scale, n=n, **finite)

    def _beyond(
        self, differences: Sequence[float], margin: float, level: float, back: Callable[[float], float] = float
    ) -> list[Finding]:
        """Supported where the interval lies above the margin, contradicted where it lies below; told through `back`,
        from the scale of the differences to that of the measure.
        """
        found = statistics.interval(differences, level)
        word: Word = "supported" if found.low > margin else "contradicted" if found.high < margin else "inconclusive"
        return [
            self._finding(
                word,
                found.n,
                back(found.mean),
                back(found.low),
                back(found.high),
                statistics.t_test(differences, margin),
                sign_flip=statistics.sign_flip([difference - margin for difference in differences]),
                detectable=back(statistics.detectable(found.sd, found.n, level)),
            )
        ]

    def _within(self, values: Sequence[float], center: float, tolerance: float, level: float) -> list[Finding]:
        """Supported where the interval lies within the tolerance of the center, contradicted where it is outside."""
        differences = [value - center for value in values]
        found = statistics.interval(differences, level)
        word: Word = "inconclusive"
        if -tolerance < found.low and found.high < tolerance:
            word = "supported"
        elif found.low > tolerance or found.high < -tolerance:
            word = "contradicted"
        return [
            self._finding(
                word,
                found.n,
                center + found.mean,
                center + found.low,
                center + found.high,
                statistics.equivalence_test(differences, tolerance),
                sign_flip=statistics.sign_flip(differences),
                detectable=statistics.detectable(found.sd, found.n, level),
            )
        ]


class _Weighed(_OfOneMeasure):
    """A weighted sum of arms, seed by seed, against a margin."""

    margin: float
    weights: Any
    """((arm, weight), ...)"""

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(arm for arm, _ in self.weights)

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        columns = zip(*aligned(outcomes[self.measure], self.arms), strict=True)
        weights = [weight for _, weight in self.weights]
        sums = [sum(w * v for w, v in zip(weights, values, strict=True)) for values in columns]
        return self._beyond(sums, self.margin, level)


@dataclasses.dataclass(frozen=True)
class contrast(_Weighed):
    """The weighted sum of arms that `says` puts in words is above `margin`: a factorial's main effect."""

    measure: str
    says: str
    weights: tuple[tuple[str, float], ...]
    margin: float = 0.0

    def __str__(self) -> str:
        return f"{self.measure}: {self.says} is above {self.margin:g}"


@dataclasses.dataclass(frozen=True)
class superior(_Weighed):
    """`better` exceeds `worse` by more than `margin`, paired by seed."""

    measure: str
    better: str
    worse: str
    margin: float = 0.0

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        return ((self.better, 1.0), (self.worse, -1.0))

    def __str__(self) -> str:
        return f"{self.measure}: {self.better} minus {self.worse} is above {self.margin:g}"


@dataclasses.dataclass(frozen=True)
class interaction(_Weighed):
    """(`a` - `b`) exceeds (`c` - `d`) by more than `margin`, paired by seed."""

    measure: str
    a: str
    b: str
    c: str
    d: str
    margin: float = 0.0

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        return ((self.a, 1.0), (self.b, -1.0), (self.c, -1.0), (self.d, 1.0))

    def __str__(self) -> str:
        return f"{self.measure}: ({self.a} - {self.b}) minus ({self.c} - {self.d}) is above {self.margin:g}"


@dataclasses.dataclass(frozen=True)
class monotone(_Weighed):
    """The measure rises along `along`: its slope on the arm's number, fitted for each seed, is above `margin`.

    Effect: the mean slope, in the measure's units per arm.
    """

    measure: str
    along: tuple[str, ...]
    margin: float = 0.0

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        center = (len(self.along) - 1) / 2
        squares = sum((number - center) ** 2 for number in range(len(self.along)))
        return tuple((arm, (number - center) / squares) for number, arm in enumerate(self.along))

    def __str__(self) -> str:
        return f"{self.measure}: rises along {', '.join(self.along)}, by more than {self.margin:g} an arm"


@dataclasses.dataclass(frozen=True)
class ratio_at_least(_OfOneMeasure):
    """`more` is at least `ratio` times `less`, paired by seed, on a log scale; both must be positive."""

    measure: str
    more: str
    less: str
    ratio: float
    scale = "ratio"

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.more, self.less)

    def __str__(self) -> str:
        return f"{self.measure}: {self.more} is at least {self.ratio:g} times {self.less}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        logs = {
            arm: {seed: math.log(value) for seed, value in values.items() if value > 0}
            for arm, values in outcomes[self.measure].items()
        }
        differences = [a - b for a, b in zip(*aligned(logs, self.arms), strict=True)]
        return self._beyond(differences, math.log(self.ratio), level, back=_exp)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


@dataclasses.dataclass(frozen=True)
class equivalent(_OfOneMeasure):
    """`one` and `other` differ by less than `margin` either way, paired by seed."""

    measure: str
    one: str
    other: str
    margin: float

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.one, self.other)

    def __str__(self) -> str:
        return f"{self.measure}: {self.one} and {self.other} differ by less than {self.margin:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        columns = aligned(outcomes[self.measure], self.arms)
        return self._within([a - b for a, b in zip(*columns, strict=True)], 0.0, self.margin, level)


@dataclasses.dataclass(frozen=True)
class near(_OfOneMeasure):
    """The mean of `arm` lies within `tolerance` of what the theory says, `value`."""

    measure: str
    arm: str
    value: float
    tolerance: float
    scale = "level"

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    def __str__(self) -> str:
        return f"{self.measure}: {self.arm} is {self.value:g} within {self.tolerance:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        (values,) = aligned(outcomes[self.measure], self.arms)
        return self._within(values, self.value, self.tolerance, level)


class _Bounded(_OfOneMeasure):
    """The mean of each arm against a bound. The arm whose interval reaches farthest to the wrong side decides; that
    there are several is corrected for (Bonferroni).
    """

    bound: float
    of: tuple[str, ...]
    scale = "level"
    sign: ClassVar[float]
    """Of the side on which the means have to lie."""

    @property
    def arms(self) -> tuple[str, ...]:
        return self.of

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        values = outcomes[self.measure]
        columns = [
            [self.sign * value for value in values.get(arm, {}).values()]
            for arm in self.of or (arm for arm in values if values[arm])
        ]
        if not columns:
            return [self._finding("inconclusive", 0, math.nan, math.nan, math.nan, math.nan)]
        corrected = 1 - (1 - level) / len(columns)

        def lowest(column: Sequence[float]) -> float:
            bound = statistics.interval(column, corrected).low
            return -math.inf if math.isnan(bound) else bound

        (found,) = self._beyond(min(columns, key=lowest), self.sign * self.bound, corrected)
        ends = (found.low, found.high) if self.sign > 0 else (found.high, found.low)
        signed = dict(zip(("effect", "low", "high"), (found.effect, *ends), strict=True))
        back = {name: None if value is None else 0.0 + self.sign * value for name, value in signed.items()}
        return [found.model_copy(update=back)]


@dataclasses.dataclass(frozen=True)
class below(_Bounded):
    """The mean of each of `of` lies below `bound`; of every arm if none is named."""

    measure: str
    bound: float
    of: tuple[str, ...] = ()
    sign = -1.0

    def __str__(self) -> str:
        return f"{self.measure}: below {self.bound:g} in {', '.join(self.of) or 'every arm'}"


@dataclasses.dataclass(frozen=True)
class above(_Bounded):
    """The mean of each of `of` lies above `bound`; of every arm if none is named."""

    measure: str
    bound: float
    of: tuple[str, ...] = ()
    sign = 1.0

    def __str__(self) -> str:
        return f"{self.measure}: above {self.bound:g} in {', '.join(self.of) or 'every arm'}"


@dataclasses.dataclass(frozen=True)
class ranks(_OfOneMeasure):
    """Over arms, the mean of `measure` and that of `predictor` are ordered alike: Spearman's rho above `at_least`.

    Effect: rho over the arms; n is their number.
    """

    measure: str
    predictor: str
    at_least: float
    arms = ()
    scale = "rank"

    @property
    def measures(self) -> tuple[str, ...]:
        return (self.measure, self.predictor)

    def __str__(self) -> str:
        return f"{self.measure}: ranked as {self.predictor}, rank correlation above {self.at_least:g}"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        x, y = outcomes[self.predictor], outcomes[self.measure]
        arms = [arm for arm in y if y[arm] and x.get(arm)]
        means = ([sum(each[arm].values()) / len(each[arm]) for arm in arms] for each in (x, y))
        rho, low, high = statistics.spearman(next(means), next(means), level)
        word: Word = (
            "supported" if low > self.at_least else "contradicted" if high < self.at_least else "inconclusive"
        )
        return [
            self._finding(word, len(arms), rho, low, high, statistics.spearman_test(rho, len(arms), self.at_least))
        ]


@dataclasses.dataclass(frozen=True)
class answered(_OfOneMeasure):
    """A proof, or a measurement without a claim: the numbers of `of`, or of every arm, are the answer.

    Effect: their mean over arms and seeds. Inconclusive where there is none.
    """

    measure: str
    of: tuple[str, ...] = ()
    scale = "level"

    @property
    def arms(self) -> tuple[str, ...]:
        return self.of

    def __str__(self) -> str:
        return f"{self.measure}{' in ' * bool(self.of)}{', '.join(self.of)}: measured; nothing was claimed"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        of = outcomes[self.measure]
        values = [value for arm in self.of or of for value in of.get(arm, {}).values()]
        found = statistics.interval(values, level)
        word: Word = "answered" if values else "inconclusive"
        return [self._finding(word, found.n, found.mean, found.low, found.high, math.nan)]


@dataclasses.dataclass(frozen=True)
class holm:
    """Several contrasts of one question, corrected for their number by Holm's step-down (1979): the k-th to decide,
    either way, is held to the level of m - k + 1 tests, and where none of the rest decides at theirs none does.
    """

    rules: tuple[Rule, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for rule in self.rules for name in rule.measures))

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arm for rule in self.rules for arm in rule.arms))

    def __str__(self) -> str:
        return "; ".join(map(str, self.rules)) + " (Holm's correction)"

    def __call__(self, outcomes: Outcomes, level: float = statistics.LEVEL) -> list[Finding]:
        findings: dict[int, Finding] = {}
        left = [*range(len(self.rules))]
        while left:
            # Not by p: that of an equivalence is large where it is surely wrong.
            found = {index: self.rules[index](outcomes, 1 - (1 - level) / len(left))[0] for index in left}
            decided = {index: finding for index, finding in found.items() if finding.word != "inconclusive"}
            findings |= decided or found
            left = [index for index in left if index not in findings]
        return [findings[index] for index in range(len(self.rules))]


def about(rule: Rule, arms: Collection[str]) -> Rule | None:
    """The rule, if it is about none but these arms; of a family those that are; None where that leaves nothing."""
    if isinstance(rule, holm):
        kept = tuple(each for each in rule.rules if about(each, arms))
        return holm(kept) if kept else None
    return rule if set(rule.arms) <= set(arms) else None

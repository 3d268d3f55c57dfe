"""Rule: what decides a claim, and what most of them have in common."""

import math
from collections.abc import Callable, Mapping, Sequence
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


class OfOneMeasure:
    """What most rules have in common: the one measure that they look at."""

    measure: str
    scale: ClassVar[Scale] = "difference"

    @property
    def measures(self) -> tuple[str, ...]:
        return (self.measure,)

    def finding(self, word: Word, n: int, effect: float, low: float, high: float, p: float, **more: Any) -> Finding:
        """What is no finite number is None: JSON has none."""
        numbers = {"effect": effect, "low": low, "high": high, "p": p, **more}
        finite = {
            name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()
        }
        return Finding(rule=str(self), measure=self.measure, word=word, scale=self.scale, n=n, **finite)

    def beyond(
        self, differences: Sequence[float], margin: float, level: float, back: Callable[[float], float] = float
    ) -> list[Finding]:
        """Supported where the interval lies above the margin, contradicted where it lies below; told through `back`,
        from the scale of the differences to that of the measure.
        """
        found = statistics.interval(differences, level)
        word: Word = "supported" if found.low > margin else "contradicted" if found.high < margin else "inconclusive"
        return [
            self.finding(
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

    def within(self, values: Sequence[float], center: float, tolerance: float, level: float) -> list[Finding]:
        """Supported where the interval lies within the tolerance of the center, contradicted where it is outside."""
        differences = [value - center for value in values]
        found = statistics.interval(differences, level)
        word: Word = "inconclusive"
        if -tolerance < found.low and found.high < tolerance:
            word = "supported"
        elif found.low > tolerance or found.high < -tolerance:
            word = "contradicted"
        return [
            self.finding(
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

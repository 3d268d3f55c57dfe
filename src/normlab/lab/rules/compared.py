"""Rules about one arm beside another, seed by seed: ratio_at_least, equivalent."""

import dataclasses
import math

from normlab.lab import statistics
from normlab.lab.rules.rule import OfOneMeasure, Outcomes, aligned
from normlab.store import Finding


@dataclasses.dataclass(frozen=True)
class ratio_at_least(OfOneMeasure):
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
        return self.beyond(differences, math.log(self.ratio), level, back=_exp)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


@dataclasses.dataclass(frozen=True)
class equivalent(OfOneMeasure):
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
        return self.within([a - b for a, b in zip(*columns, strict=True)], 0.0, self.margin, level)

"""Rules about the level of an arm itself: near, below, above, answered."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from normlab.lab import statistics
from normlab.lab.rules.rule import OfOneMeasure, Outcomes, aligned
from normlab.store import Finding
from normlab.store.verdict import Word


@dataclasses.dataclass(frozen=True)
class near(OfOneMeasure):
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
        return self.within(values, self.value, self.tolerance, level)


class _Bounded(OfOneMeasure):
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
            return [self.finding("inconclusive", 0, math.nan, math.nan, math.nan, math.nan)]
        corrected = 1 - (1 - level) / len(columns)

        def lowest(column: Sequence[float]) -> float:
            bound = statistics.interval(column, corrected).low
            return -math.inf if math.isnan(bound) else bound

        (found,) = self.beyond(min(columns, key=lowest), self.sign * self.bound, corrected)
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
class answered(OfOneMeasure):
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
        return [self.finding(word, found.n, found.mean, found.low, found.high, math.nan)]

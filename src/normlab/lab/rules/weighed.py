"""Rules about sums of arms, seed by seed: superior, contrast, main_effect, interaction, monotone."""

import dataclasses
from collections.abc import Collection
from typing import Any

from normlab.lab import statistics
from normlab.lab.rules.rule import OfOneMeasure, Outcomes, aligned
from normlab.store import Finding


class _Weighed(OfOneMeasure):
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
        return self.beyond(sums, self.margin, level)


@dataclasses.dataclass(frozen=True)
class contrast(_Weighed):
    """The weighted sum of arms that `says` puts in words is above `margin`."""

    measure: str
    says: str
    weights: tuple[tuple[str, float], ...]
    margin: float = 0.0

    def __str__(self) -> str:
        return f"{self.measure}: {self.says} is above {self.margin:g}"


@dataclasses.dataclass(frozen=True)
class main_effect(_Weighed):
    """A factorial's: the mean of the arms `high` of a factor, minus that of the arms `low`, is above `margin`.

    Of a fraction of the factorial it is asked of the arms that are there; where these have each level of every other
    factor as often on both sides it is the same effect, but for interactions (Box, Hunter & Hunter 2005, chapter 6).
    """

    measure: str
    says: str
    high: tuple[str, ...]
    low: tuple[str, ...]
    margin: float = 0.0

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        sides = ((self.high, 1.0), (self.low, -1.0))
        return tuple((arm, sign / len(side)) for side, sign in sides for arm in side)

    def among(self, arms: Collection[str]) -> "main_effect | None":
        """Asked of these arms alone; None where a side has none of them."""
        high, low = (tuple(arm for arm in side if arm in arms) for side in (self.high, self.low))
        return dataclasses.replace(self, high=high, low=low) if high and low else None

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

"""ranks: two measures order the arms alike."""

import dataclasses

from normlab.lab import statistics
from normlab.lab.rules.rule import OfOneMeasure, Outcomes
from normlab.store import Finding
from normlab.store.verdict import Word


@dataclasses.dataclass(frozen=True)
class ranks(OfOneMeasure):
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
            self.finding(word, len(arms), rho, low, high, statistics.spearman_test(rho, len(arms), self.at_least))
        ]

"""holm: several rules of one question; about: the rules that some arms can decide."""

import dataclasses
from collections.abc import Collection

from normlab.lab import statistics
from normlab.lab.rules.rule import Outcomes, Rule
from normlab.lab.rules.weighed import main_effect
from normlab.store import Finding


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
    """The rule, if it is about none but these arms; of a family those that are, of a main effect's two means what is
    left of them; None where that leaves nothing.
    """
    if isinstance(rule, holm):
        kept = tuple(left for each in rule.rules if (left := about(each, arms)))
        return holm(kept) if kept else None
    if isinstance(rule, main_effect):
        return rule.among(arms)
    return rule if set(rule.arms) <= set(arms) else None

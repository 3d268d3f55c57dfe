"""Rules: when a claim counts as supported, written before the run.

A rule looks at outcomes by arm and seed and says `supported`, `contradicted` or `inconclusive`, with the
numbers that decided. The interval decides: supported if all of it lies where the claim says, contradicted
if all of it lies where the claim says it does not, inconclusive otherwise.
"""

from normlab.lab.rules.compared import equivalent, ratio_at_least
from normlab.lab.rules.family import about, holm
from normlab.lab.rules.levels import above, answered, below, near
from normlab.lab.rules.ranks import ranks
from normlab.lab.rules.rule import Outcomes, Rule, Values, aligned
from normlab.lab.rules.weighed import contrast, interaction, main_effect, monotone, superior

__all__ = [
    "Outcomes",
    "Rule",
    "Values",
    "about",
    "above",
    "aligned",
    "answered",
    "below",
    "contrast",
    "equivalent",
    "holm",
    "interaction",
    "main_effect",
    "monotone",
    "near",
    "ranks",
    "ratio_at_least",
    "superior",
]

"""What can be wrong with a model's normalization, and the check that looks for it."""

from normlab.rules.check import check
from normlab.rules.diagnosis import Diagnosis, Finding
from normlab.rules.rule import Rule, all_rules

__all__ = ["Diagnosis", "Finding", "Rule", "all_rules", "check"]

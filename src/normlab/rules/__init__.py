"""What can be wrong with a model's normalization, and the check that looks for it."""

from normlab.rules.callbacks import lightning_callback, transformers_callback
from normlab.rules.check import check
from normlab.rules.diagnosis import Diagnosis, Finding
from normlab.rules.rule import Rule, all_rules
from normlab.rules.watch import Watcher

__all__ = [
    "Diagnosis",
    "Finding",
    "Rule",
    "Watcher",
    "all_rules",
    "check",
    "lightning_callback",
    "transformers_callback",
]

"""Recipe, Record, Verdict and their identity as plain data, and the sqlite file that keeps them. No torch here."""

from normlab.store.recipe import Recipe
from normlab.store.record import Epoch, Precise, Record, Result, Series, Timing
from normlab.store.runs import Runs
from normlab.store.trial import trial_id
from normlab.store.verdict import Finding, Verdict

__all__ = [
    "Epoch",
    "Finding",
    "Precise",
    "Recipe",
    "Record",
    "Result",
    "Runs",
    "Series",
    "Timing",
    "Verdict",
    "trial_id",
]

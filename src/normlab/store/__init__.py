"""Recipe, Record and their identity as plain data, and the sqlite file that keeps them. No torch here."""

from normlab.store.recipe import Recipe
from normlab.store.record import Epoch, Precise, Record, Result, Timing
from normlab.store.runs import Runs
from normlab.store.trial import trial_id

__all__ = ["Epoch", "Precise", "Recipe", "Record", "Result", "Runs", "Timing", "trial_id"]

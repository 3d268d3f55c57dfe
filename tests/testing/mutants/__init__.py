"""Broken layers, by what is broken; each file enters its own into MUTANTS."""

import importlib
import pkgutil

from mutants.table import MUTANTS, Mutant

for info in pkgutil.iter_modules(__path__):
    importlib.import_module(f"mutants.{info.name}")

__all__ = ["MUTANTS", "Mutant"]

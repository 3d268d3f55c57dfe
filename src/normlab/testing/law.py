"""A law: a statement, its formula, how exactly it must hold, and for which kinds of normalization."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from normlab.testing import laws as laws_folder
from normlab.testing.subject import Subject

Check = Callable[[Subject], None]


@dataclass(frozen=True)
class Law:
    """Called with a subject: returns if it holds, raises Broken if not, DoesNotApply if it cannot be asked."""

    name: str
    statement: str
    formula: str
    tolerance: str
    kinds: frozenset[str]
    check: Check

    def __call__(self, subject: Subject) -> None:
        self.check(subject)


def law(formula: str, tolerance: str, kinds: frozenset[str]) -> Callable[[Check], Law]:
    """Makes a function a Law: its name with dashes is the law's, its docstring the statement."""

    def make(check: Check) -> Law:
        return Law(
            name=getattr(check, "__name__", "law").replace("_", "-"),
            statement=inspect.getdoc(check) or "",
            formula=formula,
            tolerance=tolerance,
            kinds=kinds,
            check=check,
        )

    return make


@functools.cache
def all_laws() -> tuple[Law, ...]:
    """Every law, as the files of `testing/laws/` state them."""
    modules = [
        importlib.import_module(f"{laws_folder.__name__}.{info.name}")
        for info in pkgutil.iter_modules(laws_folder.__path__)
    ]
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Law))

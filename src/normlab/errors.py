"""What every room raises: what was expected, what came, what to do; and the loader of what a user named."""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

Choice = TypeVar("Choice")

LISTED = 12
"""Names that an error lists of a module of the user's, which may hold hundreds."""


class NormlabError(ValueError):
    """A mistake that its reader can mend; the command line prints it in one line and exits with 2."""

    def __init__(self, expected: str, got: object, do: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f"; {do}" if do else ""))


def one_line(error: BaseException) -> str:
    """`ValueError: the first line of its message`, for an exception of somebody else's code."""
    message = str(error).strip().splitlines()
    return type(error).__name__ + (f": {message[0]}" if message else "")


def choose(table: Mapping[str, Choice], name: object, what: str, *, own: bool = False) -> Choice:
    """`table[name]`; NormlabError with the nearest name and all of them if there is none.

    With `own` the message says that pkg.module:callable would do as well.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    close = difflib.get_close_matches(str(name), table, n=1, cutoff=0.5)
    known = f"there are {', '.join(table)}" + (", or your own as pkg.module:callable" if own else "")
    raise NormlabError(f"a known {what}", repr(name), f"did you mean {close[0]}? {known}" if close else known)


def is_reference(name: str) -> bool:
    """Whether a name has the form `pkg.module:callable` of something of the user's."""
    return ":" in name


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Name to parameter; none for a builtin that does not tell."""
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}


def bind(function: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Raises NormlabError, with the nearest name, if `function` does not take these keyword options."""
    parameters = parameters_of(function)
    takes = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if takes and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in options:
            choose(takes, name, f"option of {what}")
    missing = [name for name, p in takes.items() if p.default is p.empty and name not in options]
    if missing:
        raise NormlabError(f"{what} with its options", f"none for {', '.join(missing)}", "give them as k=v")


@contextlib.contextmanager
def working_directory_first() -> Iterator[Path]:
    """While entered, modules of the working directory are found before all others."""
    here = Path.cwd()
    sys.path.insert(0, str(here))
    try:
        yield here
    finally:
        # What the module imports later, at call time, is still found, but shadows nothing of ours any more.
        sys.path.remove(str(here))
        if str(here) not in sys.path:
            sys.path.append(str(here))


def load(reference: str, what: str) -> Callable[..., Any]:
    """The callable that the user named as `pkg.module:callable`, from the working directory too.

    Raises NormlabError where the module or the attribute is missing, the import raises, or what is
    there cannot be called.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise NormlabError(f"{what} as pkg.module:callable", repr(reference), "name a module and a callable in it")
    if module_name.startswith(".") or module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        raise NormlabError(
            f"{what} as pkg.module:callable",
            repr(reference),
            "name the module, not its file: dots for slashes, from the working directory down, and no .py",
        )
    try:
        with working_directory_first() as here:
            found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise NormlabError(f"{what} {reference} to import", one_line(error), "install what it needs") from error
        raise NormlabError(
            f"{what} in a module that can be imported",
            f"no module named {error.name!r}",
            f"run from the folder that holds it, or install it (looked in {here} and the environment)",
        ) from error
    except (Exception, SystemExit) as error:  # a script without its `if __name__ == "__main__"` exits
        raise NormlabError(f"{what} {reference} to import", one_line(error), "mend the module") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            public = [name for name in names if callable(getattr(found, name, None))]
            close = difflib.get_close_matches(part, public, n=1)
            listed = ", ".join(public[:LISTED]) + (", ..." if len(public) > LISTED else "")
            raise NormlabError(
                f"{what} {attribute!r} in {module_name}",
                f"no such name in {getattr(found, '__file__', None) or module_name}",
                f"did you mean {close[0]}?" if close else f"it has {listed or 'nothing that can be called'}",
            )
        found = getattr(found, part)
    if not callable(found):
        raise NormlabError(f"a callable as {what}", f"{reference}, which is a {type(found).__name__}")
    return found


def make_named(
    table: Mapping[str, Callable[..., Any]], plain: Mapping[str, Any], what: str, *, own: bool = False
) -> Any:
    """What a recipe keeps as {"name": ..., and its arguments}, made by the callable of that name in the table.

    With `own` the name may be pkg.module:callable too. Raises NormlabError if there is none of that name, and
    on arguments that it does not take.
    """
    arguments = dict(plain)
    name = arguments.pop("name", None)
    reference = own and isinstance(name, str) and is_reference(name)
    maker = load(str(name), f"a {what}") if reference else choose(table, name, what, own=own)
    try:
        return maker(**arguments)
    except NormlabError:
        raise
    except Exception as error:
        raise NormlabError(f"the arguments of {name}", one_line(error)) from error


def to_named(made: Any, table: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """The dataclass as a recipe keeps it, from which `make_named` makes it again."""
    kind = type(made)
    name = kind.__name__ if kind in table.values() else f"{kind.__module__}:{kind.__qualname__}"
    fields = json.loads(json.dumps(dataclasses.asdict(made)))  # a recipe takes lists, no tuples
    return {"name": name, **fields}

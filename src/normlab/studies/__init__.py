"""The built-in studies: one question a file, each with a `STUDY`. A new one is a new file."""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

from normlab.errors import NormlabError, choose, one_line
from normlab.lab import Study


def names() -> list[str]:
    """Every built-in study, by the name that the command line takes."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Study:
    """A built-in study, or that of a file of the user's, as its path.

    Raises NormlabError where there is none, or the file has no STUDY.
    """
    if name.endswith(".py"):
        return _of_file(Path(name))
    choose(dict.fromkeys(names()), name, "study")
    study: Study = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").STUDY
    return study


def _of_file(path: Path) -> Study:
    if not path.is_file():
        raise NormlabError("a file with a STUDY", f"no file {path}", "see `normlab study list`")
    _check_name(path)
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(path.stem)
    except NormlabError:
        raise
    except (Exception, SystemExit) as error:
        raise NormlabError(f"the study {path} to import", one_line(error), "mend it") from error
    finally:
        sys.path.remove(folder)
        # A study's arms may name what stands in its own file, as module:name: workers start with this very path.
        if folder not in sys.path:
            sys.path.append(folder)
    if not hasattr(module, "STUDY"):
        raise NormlabError(f"a STUDY in {path}", "none", "name it so: STUDY = Study(...)")
    if not isinstance(module.STUDY, Study):
        raise NormlabError(f"STUDY in {path} as a Study", f"a {type(module.STUDY).__name__}")
    return module.STUDY


def _check_name(path: Path) -> None:
    """Raises NormlabError where another module has the name: it would be imported instead, or be hidden."""
    if "." in path.stem:
        raise NormlabError("a study's file without a dot in its name", path, "rename it")
    try:
        found = importlib.util.find_spec(path.stem)
    except ValueError:  # `__main__` has none
        return
    if found and found.origin and Path(found.origin).resolve() != path.resolve():
        raise NormlabError(
            "a study's file with a name of its own", f"{path} and a module {path.stem} ({found.origin})", "rename it"
        )

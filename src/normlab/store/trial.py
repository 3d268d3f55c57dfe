"""A trial's identity: a hash of everything that can change its result, and of nothing else."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from pathlib import Path

from normlab.errors import is_reference, working_directory_first
from normlab.store.recipe import Recipe
from normlab.store.record import Record

# The rooms whose source can change a number in a record; a new figure or option must not orphan old runs.
ROOMS = ("errors.py", "kernels", "norms", "nn.py", "functional.py", "surgery", "measure", "models", "data", "train")
SOURCES = ("*.py", "*.cpp", "*.h")


def trial_id(recipe: Recipe) -> str:
    """Sixteen hex digits: the resolved recipe, torch's version, our source files, and the source file of
    every callable that the user named.
    """
    identity = {
        "recipe": recipe.model_dump(mode="json"),
        "torch": _version("torch"),
        "source": _source_hash(),
        "named": {reference: _file_hash(reference) for reference in sorted(_references(recipe.model_dump()))},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def reusable(record: Record) -> bool | None:
    """Whether this version, here, would make the very trial of a record; None where that cannot be told, since
    source that its recipe names is not found from the working directory.
    """
    if trial_id(record.recipe) == record.trial:
        return True
    return None if any(_file_hash(each) is None for each in _references(record.recipe.model_dump())) else False


def versions() -> dict[str, str]:
    """The versions that a record names."""
    packages = ("normlab", "torch", "numpy")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def machine() -> dict[str, str | int]:
    """The machine that a record names; no host or user name."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _version(package: str) -> str:
    """Looked up once: each look reads and parses the package's metadata, two milliseconds of every trial."""
    return importlib.metadata.version(package)


@functools.cache
def _source_hash() -> str:
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for room in ROOMS:
        path = package / room
        files = [each for kind in SOURCES for each in path.rglob(kind)] if path.is_dir() else [path]
        for file in sorted(files):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _references(value: object) -> set[str]:
    """Every `pkg.module:callable` in a recipe, however deep."""
    if isinstance(value, dict):
        return set().union(*map(_references, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(_references, value))
    return {value} if isinstance(value, str) and is_reference(value) else set()


def _file_hash(reference: str) -> str | None:
    """Of the module's source; None for what is no importable module (`cuda:0`) or has no source file."""
    try:
        with working_directory_first():
            spec = importlib.util.find_spec(reference.partition(":")[0])
    except Exception:  # finding `pkg.module` imports pkg, a stranger's code
        return None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()

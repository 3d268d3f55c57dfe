"""normlab doctor: what works here, what is missing, what to do."""

import importlib.metadata
import json as json_lines
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from normlab.cli.tables import plain_console
from normlab.errors import one_line

Finding = tuple[bool, str, str]
"""Whether it is well, what is there, and what to do if not."""


def doctor(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Look at python, torch, the compiler, the kernels, the data and the store. Exit code 2 if a need is not met.

    Args:
        json: end with one line of JSON.

    """
    console = plain_console()
    report: dict[str, Any] = {}
    for name, well, found, do in _findings():
        report[name] = {"ok": well, "found": found, "do": do}
        if not json:
            console.print("ok  " if well else "look", style="green" if well else "yellow", end=" ")
            console.print(name, style="bold", end=": ")
            console.print(found + (f"; {do}" if do else ""))
    if json:
        print(json_lines.dumps(report))
    if not (report["python"]["ok"] and report["torch"]["ok"] and report["store"]["ok"]):
        raise SystemExit(2)


def _findings() -> Iterator[tuple[str, bool, str, str]]:
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "torch": _torch,
        "compiler": _compiler,
        "kernels": _kernels,
        "data": _data,
        "store": _store,
    }
    for name, check in checks.items():
        try:
            yield name, *check()
        except Exception as error:  # a doctor reports what fails
            yield name, False, one_line(error), ""


def _python() -> Finding:
    return (
        True,
        f"{platform.python_version()} at {sys.executable}, {platform.platform()}, {os.cpu_count()} cores",
        "",
    )


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return False, one_line(error), "pip install 'torch>=2.10'"
    devices = ["cpu", *(["cuda"] * torch.cuda.is_available()), *(["mps"] * torch.backends.mps.is_available())]
    found = (
        f"{importlib.metadata.version('torch')}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, devices {', '.join(devices)}"
    )
    major, minor = map(int, torch.__version__.split(".")[:2])
    return (
        (major, minor) >= (2, 10),
        found,
        "" if (major, minor) >= (2, 10) else "normlab needs torch >= 2.10",
    )


def _compiler() -> Finding:
    from normlab.kernels.compiler import Unusable, compiler

    try:
        return True, str(compiler()), ""
    except Unusable as error:
        return False, str(error), error.do


def _kernels() -> Finding:
    from normlab.kernels import serving

    found = serving.looked_up()
    return found.name != "plain", str(found), found.do


def _data() -> Finding:
    from normlab.data import NAMES, describe

    facts = [describe(name) for name in NAMES]
    bad = [fact.name for fact in facts if fact.status != "verified"]
    found = ", ".join(f"{fact.name} {fact.status}" for fact in facts)
    return not bad, found, f"normlab data {' '.join(bad)}" if bad else ""


def _store() -> Finding:
    from normlab.store import Runs

    runs = Runs()
    found = (
        f"{len(runs.list())} runs in {runs.path}"
        if runs.path.exists()
        else f"none yet; the first run makes {runs.path}"
    )
    there = next(path for path in (runs.path, *runs.path.parents) if path.exists())
    if not os.access(there, os.W_OK) or (there != runs.path and not there.is_dir()):
        return False, f"{found}, but {there} may not be written to", "mend its rights, or set NORMLAB_HOME"
    return True, found, ""

"""Which code serves: the native kernels, their reference, or plain torch; and why.

NORMLAB_KERNELS=native makes an error of what would hinder the native ones, NORMLAB_KERNELS=reference keeps to the
reference. Without it they are compiled at first use, and where that cannot be plain torch runs and a line says why.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from normlab.errors import NormlabError, one_line
from normlab.kernels import build, ops
from normlab.kernels.build import Build
from normlab.kernels.compiler import Unusable

SOURCES = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Serving:
    """The code that runs, why it does, and what the reader can do if that is not the fastest."""

    name: Literal["native", "reference", "plain"]
    why: str
    do: str = ""

    def __str__(self) -> str:
        return f"plain torch: {self.why}" if self.name == "plain" else f"{self.name}, {self.why}"


@functools.cache
def path() -> Serving:
    """What serves this process; the first call compiles the native kernels if need be, and loads them.

    Raises NormlabError where NORMLAB_KERNELS is no known word, or asks for native kernels that cannot be had.
    """
    serving = _chosen(_load)
    if serving.name == "plain":
        print(f"normlab: no native kernels, {serving}" + (f"; {serving.do}" if serving.do else ""), file=sys.stderr)
    return serving


def looked_up() -> Serving:
    """What `path` would give, as far as that can be told without compiling or loading; raises as it does."""
    return _chosen(_look)


def _chosen(get: Callable[[Build], str]) -> Serving:
    asked = os.environ.get("NORMLAB_KERNELS", "")
    if asked not in ("", "native", "reference"):
        raise NormlabError("native or reference in NORMLAB_KERNELS", repr(asked), "or unset it")
    if asked == "reference":
        return Serving("reference", "as NORMLAB_KERNELS asks")
    try:
        return Serving("native", get(build.plan(SOURCES)))
    except (Unusable, OSError) as error:
        why, do = (str(error), error.do) if isinstance(error, Unusable) else (one_line(error), "mend that")
        if asked == "native":
            raise NormlabError("native kernels, as NORMLAB_KERNELS asks", why, do) from error
        return Serving("plain", why, do)


def _load(kernels: Build) -> str:
    if not kernels.ready():
        kernels.make()
    try:
        ops.load(str(kernels.library))
    except OSError as error:
        raise Unusable(f"the library does not load ({one_line(error.__cause__ or error)})") from error
    return "compiled for this machine"


def _look(kernels: Build) -> str:
    if kernels.ready():
        return "compiled for this machine"
    kernels.check()
    return f"to be compiled at first use by {kernels.compiler}"

"""The arithmetic peak of one core, in float32 multiply-adds, against which a kernel's speed is held."""

import ctypes
import functools
from pathlib import Path

from normlab.errors import NormlabError, one_line
from normlab.kernels import build
from normlab.kernels.compiler import Unusable

ITERATIONS, TRIES = 5_000_000, 10
"""About 10 ms a try."""


def fma_peak(iterations: int = ITERATIONS, tries: int = TRIES) -> float:
    """GFLOP/s of one core, the best of several tries; a multiply-add counts two.

    Raises NormlabError where it cannot be compiled.
    """
    return max(float(_library().fma_peak(ctypes.c_int64(iterations))) for _ in range(tries))


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        made = build.plan(Path(__file__).parent)
        if not made.ready():
            made.make()
        library = ctypes.CDLL(str(made.library))
    except (Unusable, OSError) as error:
        do = error.do if isinstance(error, Unusable) else ""
        raise NormlabError("to compile the kernel that measures the peak", one_line(error), do) from error
    library.fma_peak.restype = ctypes.c_double
    return library

"""Timing of calls that take turns in one process."""

import time
from collections.abc import Callable

Run = Callable[[], object]


def time_call(run: Run, least: float = 0.01) -> float:
    """Seconds of one call, among as many as take a while, after one that warms the caches."""
    run()
    start, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < least or not calls:
        run()
        calls += 1
    return passed / calls

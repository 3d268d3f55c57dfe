"""Ctrl-C and SIGTERM: at first an end, then a wish to stop at the next point from which a run can go on."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Ended(KeyboardInterrupt):
    """A signal that ends it all at once."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While entered, Ctrl-C raises `Ended`, or ends the process if it comes within an import."""
    before = signal.signal(signal.SIGINT, lambda _, frame: _end(128 + signal.SIGINT, frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(exit_code: int, frame: FrameType | None) -> None:
    # A half-imported library turns what is raised in it into its own errors, swallows it, or aborts (torch's C++).
    if _importing(frame):
        print("normlab: interrupted", file=sys.stderr, flush=True)
        os._exit(exit_code)
    raise Ended(exit_code)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class StopSignals:
    """While entered and armed the first signal is remembered; a second one, or an unarmed first, ends it all.

    Arm it when there is something worth a checkpoint; until then a signal interrupts at once.
    """

    def __init__(self) -> None:
        self._armed = False
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """From now on a signal is a wish."""
        self._armed = True

    def received(self) -> bool:
        """Whether one has come."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells have it."""
        return 128 + (self._signal or signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self._signal is not None
        self._signal = number
        if again or not self._armed:
            _end(self.exit_code, frame)

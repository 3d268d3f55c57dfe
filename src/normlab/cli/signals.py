"""Ctrl-C and SIGTERM as a wish to stop at the next point from which a run can go on."""

import signal
from types import FrameType
from typing import Any


class Ended(KeyboardInterrupt):
    """A signal that ends it all at once."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


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

    def heed(self) -> None:
        """End it all if a signal has come and its exception was lost: an import swallows what a callback raises."""
        if self.received():
            raise Ended(self.exit_code)

    def received(self) -> bool:
        """Whether one has come."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells have it."""
        return 128 + (self._signal or signal.SIGINT)

    def _handle(self, number: int, _: FrameType | None) -> None:
        again = self._signal is not None
        self._signal = number
        if again or not self._armed:
            raise Ended(self.exit_code)

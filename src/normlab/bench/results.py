"""What a comparison of trainings found, from the speeds of its rounds."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Key = tuple[int, str]
"""Threads, and the name of an arm."""
MARKDOWN = (
    "network", "threads", "examples/s", "of the FMA peak", "x eager", "x compile", "x jax", "2 threads / 1",
    "memory / eager",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Examples per second by round, of every arm that is there; the arithmetic peak of one core, in GFLOP/s."""

    network: str
    speeds: Mapping[Key, Sequence[float]]
    peak: float
    flops: float
    peak_bytes: Mapping[str, int | None]
    left_out: Mapping[str, str]
    steps: int
    seconds_to: Mapping[str, float | None] | None = None

    @property
    def threads(self) -> list[int]:
        return sorted({threads for threads, _ in self.speeds})

    def speed(self, threads: int, arm: str = "ours") -> float | None:
        """The median over rounds."""
        found = self.speeds.get((threads, arm))
        return statistics.median(found) if found else None

    def ratios(self, one: Key, other: Key) -> list[float]:
        """Of two arms, round by round; none where one is not there."""
        if one not in self.speeds or other not in self.speeds:
            return []
        return [a / b for a, b in zip(self.speeds[one], self.speeds[other], strict=True)]

    def versus(self, peer: str, threads: int) -> float | None:
        """How many times as fast as a peer we are."""
        return _median(self.ratios((threads, "ours"), (threads, peer)))

    def fma_share(self, threads: int, arm: str = "ours") -> float | None:
        """Of the arithmetic that so many cores can do."""
        speed = self.speed(threads, arm)
        return None if speed is None else self.flops * speed / (1e9 * threads * self.peak)

    @property
    def scaling_2(self) -> float | None:
        return _median(self.ratios((2, "ours"), (1, "ours")))

    @property
    def peak_bytes_vs_eager(self) -> float | None:
        ours, eager = self.peak_bytes.get("ours"), self.peak_bytes.get("eager")
        return ours / eager if ours is not None and eager else None

    def to_json(self) -> dict[str, Any]:
        """The figures at the fewest threads, then those at each; what was not measured is null."""
        by_threads = {}
        for threads in self.threads:
            arms = [arm for number, arm in self.speeds if number == threads]
            ratios = {arm: self.ratios((threads, "ours"), (threads, arm)) for arm in arms if arm != "ours"}
            by_threads[str(threads)] = {
                "examples_per_s": {arm: self.speed(threads, arm) for arm in arms},
                "fma_share": {arm: self.fma_share(threads, arm) for arm in arms},
                "vs": {arm: _median(found) for arm, found in ratios.items()},
                "vs_range": {arm: [min(found), max(found)] for arm, found in ratios.items()},
            }
        least = self.threads[0]
        return {
            "examples_per_s": self.speed(least),
            "vs_eager": self.versus("eager", least),
            "vs_compile": self.versus("compile", least),
            "vs_jax": self.versus("jax", least),
            "fma_share": self.fma_share(least),
            "scaling_2": self.scaling_2,
            "peak_bytes_vs_eager": self.peak_bytes_vs_eager,
            "peak_bytes": dict(self.peak_bytes),
            "seconds_to": self.seconds_to and dict(self.seconds_to),
            "flops_per_example": self.flops,
            "fma_peak_gflops": self.peak,
            "by_threads": by_threads,
            "left_out": dict(self.left_out),
            "rounds": len(self.speeds[least, "ours"]),
            "steps": self.steps,
        }

    def rows(self) -> list[list[str]]:
        """Threads, arm, its examples per second, its share of the peak, how many times as fast ours is, and the
        least and most of that over the rounds.
        """
        found = []
        for threads, arm in self.speeds:
            ratios = self.ratios((threads, "ours"), (threads, arm))
            times = (
                [f"{_median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"] if arm != "ours" else ["", ""]
            )
            share = self.fma_share(threads, arm)
            found.append([str(threads), arm, f"{self.speed(threads, arm):,.0f}", _percent(share), *times])
        return found

    def markdown(self) -> list[list[str]]:
        """A row under MARKDOWN for each number of threads."""
        return [
            [
                self.network,
                str(threads),
                f"{self.speed(threads):,.0f}",
                _percent(self.fma_share(threads)),
                *(_times(self.versus(peer, threads)) for peer in ("eager", "compile", "jax")),
                _times(self.scaling_2) if threads == 2 else "",
                _times(self.peak_bytes_vs_eager) if threads == self.threads[0] else "",
            ]
            for threads in self.threads
        ]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"

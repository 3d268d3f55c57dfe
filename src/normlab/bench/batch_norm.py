"""Our batch normalization against torch's in the thread's run: the same loop, loader, optimizer and draws.

    python -m normlab.bench.batch_norm [EXAMPLES]

Both trainings run in one process, on one torch thread each, and take turns after every step; a step is timed
from its turn's begin to its end. Whole runs that take turns differ by 10 % by the luck of their memory.
"""

import statistics
import sys
import threading
import time

from torch import nn

from normlab.store import Recipe
from normlab.train import Observer, train
from normlab.train.progress import WARMUP_STEPS, Sums

ARMS = {
    "normlab.nn": (),
    "torch.nn": ({"name": "swap", "source": "batch", "target": "normlab.bench.batch_norm:torch_norm"},),
}
BATCH = 256
EXAMPLES = 200 * BATCH


def torch_norm(num_features: int, dim: int) -> nn.Module:
    """Torch's own layer, as a target for `swap`."""
    return {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dim](num_features)


class _Turns(Observer):
    """Times each step, then lets the other run have one."""

    def __init__(self, mine: threading.Semaphore, other: threading.Semaphore) -> None:
        self.mine = mine
        self.other = other
        self.seconds: list[float] = []

    def begin(self, recipe: Recipe, steps_per_epoch: int | None, epochs_done: int) -> None:
        self.mine.acquire()
        self.started = time.perf_counter()

    def step(self, sums: Sums) -> None:
        self.seconds.append(time.perf_counter() - self.started)
        self.other.release()
        self.mine.acquire()
        self.started = time.perf_counter()

    def end(self) -> None:
        self.other.release()


def main(examples: int = EXAMPLES) -> None:
    """Measure and print."""
    base = Recipe(epochs=3, batch_size=BATCH, train_examples=examples, threads=1, lanes=False)
    turns = threading.Semaphore(1), threading.Semaphore(0)
    observers = {arm: _Turns(turns[number], turns[1 - number]) for number, arm in enumerate(ARMS)}
    runs = [
        threading.Thread(target=train, args=(base.replace(surgeries=ARMS[arm]),), kwargs={"observer": observer})
        for arm, observer in observers.items()
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    steps = {arm: observer.seconds[WARMUP_STEPS:] for arm, observer in observers.items()}
    for arm, seconds in steps.items():
        median = statistics.median(seconds)
        print(f"{arm:12} median {1e3 * median:.2f} ms a step of {len(seconds)}, {BATCH / median:.0f} examples/s")
    ratios = [peer / ours for ours, peer in zip(*steps.values(), strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"ratio of speeds, step by step: median {statistics.median(ratios):.3f}, quartiles {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Our batch normalization against torch's in the thread's run: the same loop, loader, optimizer and draws.

    python -m normlab.bench.batch_norm [ROUNDS]

Arms take turns within each round, now one first and now the other, on one thread; the first round is warm-up. The ratio is the median over
rounds of ours / torch's examples per second.
"""

import statistics
import sys

from torch import nn

from normlab.store import Recipe
from normlab.train import train

ARMS = {
    "normlab.nn": (),
    "torch.nn": ({"name": "swap", "source": "batch", "target": "normlab.bench.batch_norm:torch_norm"},),
}
EXAMPLES = 60 * 256


def torch_norm(num_features: int, dim: int) -> nn.Module:
    """Torch's own layer, as a target for `swap`."""
    return {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dim](num_features)


def main(rounds: int = 9) -> None:
    """Measure and print."""
    base = Recipe(epochs=1, train_examples=EXAMPLES, threads=1)
    speeds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn in range(rounds + 1):
        for arm in sorted(ARMS, reverse=turn % 2 == 1):
            record = train(base.replace(surgeries=ARMS[arm]))
            if turn:
                speeds[arm].append(record.timing.examples_per_s)
    for arm, measured in speeds.items():
        print(f"{arm:12} median {statistics.median(measured):8.0f} examples/s of {rounds} rounds: ", end="")
        print(" ".join(f"{speed:.0f}" for speed in measured))
    ratios = [ours / peer for ours, peer in zip(*speeds.values(), strict=True)]
    print(f"ratio        median {statistics.median(ratios):8.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

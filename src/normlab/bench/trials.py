"""What a study costs beside training: the overhead of a trial, and how well two workers share two cores.

    python -m normlab.bench.trials

Overhead: the wall clock of a trial of a single step, less that of its step, in a warm worker. Efficiency: the time
that trials take one after another over twice that of two workers, runs of either kind in turns.
"""

import statistics
import time

from normlab.lab.executor import local, run_all
from normlab.lab.worker import outcome, work
from normlab.store import Recipe, Record

TRIAL = Recipe(
    train_examples=20_000, validation=5_000, epochs=1, batch_size=64, schedule="cosine", precise_examples=2_000,
    threads=1, device="cpu",
)  # fmt: skip
TINY = TRIAL.replace(train_examples=64, precise_examples=64, evaluate=())
ROUNDS, TRIALS, TINIES = 5, 8, 40


def wall(recipe: Recipe, trials: int, workers: int) -> tuple[float, list[Record]]:
    """Seconds of so many trials, each with a seed of its own, in workers that are warm, and their records."""
    warm = {f"warm {seed}": TINY.replace(seed=seed).model_dump_json() for seed in range(2 * workers)}
    waiting, start, records = dict(warm), 0.0, []
    seeds = iter(range(trials))
    for number, (_, told) in enumerate(run_all(waiting, work, local(workers), workers), 1):
        if isinstance(told, Exception) or isinstance(result := outcome(told), str):
            raise SystemExit(f"a trial failed: {told}")
        if number > len(warm):
            records.append(result)
        if number == len(warm):
            start = time.perf_counter()
            waiting |= {str(seed): recipe.replace(seed=100 + seed).model_dump_json() for seed in seeds}
    return time.perf_counter() - start, records


def main() -> None:
    """Print both, with every round."""
    overheads, efficiencies = [], []
    for _ in range(ROUNDS):
        seconds, records = wall(TINY, TINIES, 1)
        loops = sum(64 / record.timing.examples_per_s for record in records)
        overheads.append(1000 * (seconds - loops) / TINIES)
        alone, _ = wall(TRIAL, TRIALS, 1)
        both, _ = wall(TRIAL, TRIALS, 2)
        efficiencies.append(alone / 2 / both)
        print(f"overhead {overheads[-1]:.1f} ms a trial; {alone:.2f} s alone, {both:.2f} s in two workers")
    print(
        f"medians of {ROUNDS}: overhead {statistics.median(overheads):.1f} ms a trial, "
        f"efficiency of two workers {statistics.median(efficiencies):.3f}"
    )


if __name__ == "__main__":
    main()

"""Training in lanes against torch eager, torch.compile and JAX: same network, weights, order of data and optimizer.

Every arm lives in a process of its own on the same cores. The arms take turns, a burst of steps each, so that what
the machine does besides meets all of them; a ratio is the median over rounds of the ratio within a round.
"""

import contextlib
from collections.abc import Callable, Sequence

from normlab.bench.networks import NETWORKS, training_flops
from normlab.bench.peak import fma_peak
from normlab.bench.results import Comparison, Key
from normlab.bench.worker import Job, Worker, cores
from normlab.errors import NormlabError, choose
from normlab.kernels import serving

PEERS = ("eager", "compile", "jax")
BATCH = 256
ROUNDS = 7
TOLERANCE = 1e-4
"""Of the losses of the first two steps, relative: the same arithmetic in another order is off by 1e-6."""


def check_kernels() -> None:
    """Raises NormlabError unless the native kernels serve."""
    serves = serving.looked_up()
    if serves.name == "native":
        serves = serving.path()
    if serves.name != "native":
        raise NormlabError("native kernels, which this measures", str(serves), serves.do)


def compare(
    network: str,
    *,
    peers: Sequence[str] = PEERS,
    threads: Sequence[int] = (1, 2),
    rounds: int = ROUNDS,
    steps: int | None = None,
    accuracy: float | None = None,
    data: str = "fashion-mnist",
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Measure a network of NETWORKS.

    Args:
        network: its name.
        peers: of PEERS; one that is not installed is left out, and `say` is told why.
        threads: numbers of threads; every arm is measured at each.
        rounds: turns of every arm.
        steps: of a burst. Default: the network's.
        accuracy: measure too how long ours and eager train to this test accuracy.
        data: a data set of images (1, 28, 28) and ten classes.
        say: is told of the progress, in lines.

    Raises:
        NormlabError: no native kernels, unknown names, more threads than cores, or arms that do not agree.

    """
    steps = steps or choose(NETWORKS, network, "network").steps
    for peer in peers:
        choose(dict.fromkeys(PEERS), peer, "peer")
    if rounds < 1 or steps < 1 or not threads:
        raise NormlabError("rounds, steps and threads from 1", f"{rounds}, {steps} and {list(threads)}")
    places = {number: cores(number) for number in sorted(set(threads))}
    check_kernels()
    flops, left_out = training_flops(network), {}
    with contextlib.ExitStack() as stack:
        workers: dict[Key, Worker] = {}
        for number, place in places.items():
            for arm in ("ours", *peers):
                if arm in left_out:
                    continue
                say(f"{network}: preparing {arm}, threads {number}")
                worker = Worker(Job(network, arm, place, data, BATCH))
                stack.callback(worker.close)
                if worker.absent:
                    left_out[arm] = worker.absent
                    say(f"{network}: without {arm}: {worker.absent}")
                else:
                    workers[number, arm] = worker
        check_agreement(
            {f"{arm} with {number} thread(s)": worker.losses for (number, arm), worker in workers.items()}
        )
        speeds: dict[Key, list[float]] = {key: [] for key in workers}
        peak = 0.0
        for turn in range(1, rounds + 1):
            peak = max(peak, fma_peak())  # the machine's, whoever else held it: a share of it errs on the low side
            for key, worker in workers.items():
                speeds[key].append(worker.burst(steps))
            say(f"{network}: round {turn} of {rounds}")
        least = min(places)
        sides = [arm for arm in ("ours", "eager") if (least, arm) in workers]
        seconds_to = None
        if accuracy is not None:
            say(f"{network}: training to test accuracy {accuracy}")
            seconds_to = {arm: workers[least, arm].seconds_to(accuracy) for arm in sides}
        peak_bytes = {arm: workers[least, arm].peak_bytes for arm in sides}
    return Comparison(network, speeds, peak, flops, peak_bytes, left_out, steps, seconds_to)


def check_agreement(losses: dict[str, tuple[float, float]]) -> None:
    """Raises NormlabError unless all arms start from the same losses: of the first batch, before and after a step."""
    (first, expected), *others = losses.items()
    for name, got in others:
        for step, (one, other) in enumerate(zip(expected, got, strict=True), 1):
            if not abs(one - other) <= TOLERANCE * abs(one):
                raise NormlabError(f"the loss {one!r} of {first} from {name} at step {step}", repr(other))

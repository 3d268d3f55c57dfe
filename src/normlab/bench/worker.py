"""An arm in a process of its own, bound to its cores: it waits for its turn, and trains a burst of steps."""

import dataclasses
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

from normlab.errors import NormlabError, one_line

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
"""For XLA, which reads it when JAX is imported; with more cores it takes as many threads as it is bound to."""
UNTIMED = 2
"""Steps at the begin of a turn that warm the caches which the arm before has filled."""
SMALL = 16
"""Examples of the step that loads a library's code, before memory is looked at."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker trains, on what, where."""

    network: str
    peer: str
    cores: tuple[int, ...]
    data: str
    batch: int

    @property
    def threads(self) -> int:
        return len(self.cores)


def free_cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cores(threads: int) -> tuple[int, ...]:
    """The first cores that this process may use; NormlabError if there are fewer."""
    free = free_cores()
    if not 1 <= threads <= len(free):
        raise NormlabError(f"threads from 1 to {len(free)}, the cores of this process", threads)
    return tuple(free[:threads])


class Worker:
    """The parent's end of an arm: `losses` of two steps, `peak_bytes` of one, why it is `absent` if it is.

    Raises NormlabError where the arm fails.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads as locks
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(job, theirs), daemon=True)
        self.process.start()
        theirs.close()
        try:
            ready = self._hear()
        except BaseException:
            self.close()
            raise
        self.absent: str | None = ready.get("absent")
        self.losses: tuple[float, float] = ready.get("losses", (0.0, 0.0))
        self.peak_bytes: int | None = ready.get("peak_bytes")

    def burst(self, steps: int) -> float:
        """Examples per second over so many steps."""
        return self._ask("burst", steps)["examples_per_s"]

    def seconds_to(self, accuracy: float) -> float | None:
        """Seconds of training from the initial weights to this test accuracy; None if it is not reached."""
        return self._ask("seconds_to", accuracy)["seconds"]

    def close(self) -> None:
        """End the process, which has nothing to save."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()

    def _ask(self, what: str, argument: float) -> dict[str, Any]:
        self.pipe.send((what, argument))
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        name = f"{self.job.peer} on {self.job.network} with {self.job.threads} thread(s)"
        try:
            answer: dict[str, Any] = self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            raise NormlabError(f"{name} to run", f"a process that died with exit code {code}") from None
        if "failed" in answer:
            raise NormlabError(f"{name} to run", answer["failed"])
        return answer


def serve(job: Job, pipe: Connection) -> None:
    """Build the arm, say that it is ready, and answer until the pipe is closed."""
    try:
        _serve(job, pipe)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send({"failed": one_line(error)})


def _serve(job: Job, pipe: Connection) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)  # before any library starts its threads
    if job.threads == 1:
        os.environ["XLA_FLAGS"] = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), ONE_THREAD)))

    import torch

    from normlab import data, models
    from normlab.bench.arms import Absent, Eager, batches, make
    from normlab.bench.memory import peak_growth
    from normlab.data import Examples

    torch.set_num_threads(job.threads)
    dataset = data.load(job.data)
    if not isinstance(dataset.train, Examples) or not isinstance(dataset.test, Examples):
        raise NormlabError("train and test as tensors or arrays", f"those of {job.data}")
    split = Examples(dataset.train.x.clone(), dataset.train.y.clone())  # in memory, not in a mapped file
    order = batches(len(split), job.batch)
    first = next(order)
    peak_bytes = None
    try:
        with models.borrowed():
            if job.peer in ("ours", "eager"):
                trial = make(job.peer, job.network, split)
                trial.step(first[:SMALL])
                peak_bytes = peak_growth(lambda: trial.step(first))
                del trial
            arm = make(job.peer, job.network, split)
            arm.step(first)
            losses = [arm.loss()]
            arm.step(first)
            losses.append(arm.loss())
    except Absent as absent:
        pipe.send({"absent": str(absent)})
        return
    pipe.send({"losses": tuple(losses), "peak_bytes": peak_bytes})
    while True:
        what, argument = pipe.recv()
        if what == "seconds_to" and isinstance(arm, Eager):
            pipe.send({"seconds": arm.seconds_to(argument, dataset.test, job.batch)})
            continue
        for _ in range(UNTIMED):
            arm.step(next(order))
        arm.loss()
        start = time.perf_counter()
        for _ in range(argument):
            arm.step(next(order))
        arm.loss()
        pipe.send({"examples_per_s": argument * job.batch / (time.perf_counter() - start)})

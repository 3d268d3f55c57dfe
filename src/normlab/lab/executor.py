"""Work on many payloads in parallel, each of which may raise, be killed or run out of memory alone.

Everything that crosses a process is text (JSON). Any `concurrent.futures` executor will do: loky's here, Dask's
`Client.get_executor()` on a cluster, or the user's own.
"""

import concurrent.futures
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import TYPE_CHECKING

from normlab.errors import NormlabError, load, one_line
from normlab.lab.worker import begin

if TYPE_CHECKING:
    from distributed import Client

Work = Callable[[str], str]
"""An importable function from one text to another."""
Say = Callable[[str], None]
"""Takes a line for the person who waits."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class Lost(Exception):  # noqa: N818 - what befell a payload, as data for the caller
    """The process that worked on a payload went away: killed, or out of memory."""


Outcome = str | Exception
"""What the work returned, or why it did not."""

CONNECT = "10s"
"""How long a scheduler may take to answer."""
LOOK = 5.0
"""Seconds between two looks at whether a cluster has a worker."""
ATTEMPTS = 3
"""Of a payload that is alone in a pool: whoever kills workers at random should not take a trial for its own fault."""


def run_all(
    waiting: dict[str, str],
    work: Work,
    open_executor: Callable[[], Executor],
    workers: int,
) -> Iterator[tuple[str, Outcome]]:
    """Each key of `waiting` once, with its outcome, as it comes; whoever iterates may add more meanwhile.

    When a pool breaks, nobody can tell which of the payloads in flight broke it: those are run again one at a
    time, in a new pool once one breaks, and what breaks one `ATTEMPTS` times alone is `Lost`. The rest goes on.
    """
    while waiting:
        suspects: dict[str, str] = {}
        yield from _until_broken(waiting, suspects, work, open_executor, 2 * workers)
        broken: Counter[str] = Counter()
        while suspects:
            guilty: dict[str, str] = {}
            yield from _until_broken(suspects, guilty, work, open_executor, 1)
            broken.update(guilty.keys())
            for key, payload in guilty.items():
                if broken[key] < ATTEMPTS:
                    suspects[key] = payload
                else:
                    yield key, Lost("the worker process was killed or ran out of memory")


def _until_broken(
    waiting: dict[str, str], suspects: dict[str, str], work: Work, open_executor: Callable[[], Executor], window: int
) -> Iterator[tuple[str, Outcome]]:
    """Outcomes until nothing waits or the pool breaks; then `suspects` holds what was in flight.

    At most `window` payloads are in flight, so that a broken pool takes few with it.
    """
    executor = open_executor()
    flying: dict[Future[str], tuple[str, str]] = {}
    try:
        while waiting or flying:
            while waiting and len(flying) < window and not suspects:
                key = next(iter(waiting))
                try:
                    future = executor.submit(work, waiting[key])
                except BrokenExecutor:
                    if not flying:
                        suspects[key] = waiting.pop(key)
                    break
                flying[future] = key, waiting.pop(key)
            if not flying:
                return
            done, _ = concurrent.futures.wait(flying, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                key, payload = flying.pop(future)
                try:
                    yield key, future.result()
                except BrokenExecutor:
                    suspects[key] = payload
                except concurrent.futures.CancelledError:
                    suspects[key] = payload
                except Exception as error:
                    yield key, error
    finally:
        for future in flying:
            future.cancel()
        executor.shutdown(wait=not flying and not suspects)


def local(workers: int, gpus: int = 0) -> Callable[[], Executor]:
    """Worker processes of this machine, spawned, with one thread each, and one GPU each if there are several."""

    def open_executor() -> Executor:
        from loky import ProcessPoolExecutor

        class Processes(ProcessPoolExecutor):  # type: ignore[misc]
            """What is not waited for is killed: its payload belongs to nobody any more."""

            def shutdown(self, wait: bool = True) -> None:
                super().shutdown(wait=True, kill_workers=not wait)

        return Processes(max_workers=workers, initializer=begin, initargs=(1, gpus, os.getpid()), env=ENVIRONMENT)

    return open_executor


def dask(address: str, say: Say = lambda _: None) -> Callable[[], Executor]:
    """The workers of a Dask cluster, which runs again what it loses and gives up on what kills four workers.

    It waits for a worker as long as it takes; `say` is told when there is none.
    """

    def open_executor() -> Executor:
        client = _client(address)
        from distributed.cfexecutor import ClientExecutor

        class Cluster(ClientExecutor):  # type: ignore[misc]
            """Whoever opened the client closes it."""

            def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
                try:
                    super().shutdown(wait)
                finally:
                    client.close()

        threading.Thread(target=_tell_of_no_worker, args=(client, address, say), daemon=True).start()
        return Cluster(client, pure=False)

    return open_executor


def dask_workers(address: str) -> int:
    """Worker processes that a Dask cluster has: trials that it runs at a time; NormlabError where there is none."""
    with _client(address) as client:
        return max(1, len(client.nthreads()))


def _client(address: str) -> "Client":
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ImportError as error:
        raise NormlabError(
            "the package distributed for --backend dask", one_line(error), "pip install normlab[dask]"
        ) from error
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise NormlabError("--address as tcp://host:8786", repr(address)) from error
    try:
        return Client(address, set_as_default=False, timeout=CONNECT)
    except OSError as error:
        raise NormlabError(f"a Dask scheduler at {address}", one_line(error), "start it: dask scheduler") from error


def _tell_of_no_worker(client: "Client", address: str, say: Say) -> None:
    """Once each time that the last one has gone, until the client is closed."""
    told = False
    while client.status == "running":
        with contextlib.suppress(Exception):  # a client that is being closed raises whatever it is at
            alone = not client.nthreads()
            if alone and not told:
                say(f"waiting for a Dask worker at {address}; start one: dask worker {address} --nworkers -1")
            told = alone
        time.sleep(LOOK)


def named(reference: str) -> Callable[[], Executor]:
    """What the user's pkg.module:callable returns; NormlabError if that is no executor."""
    make = load(reference, "an executor")

    def open_executor() -> Executor:
        made = make()
        if not isinstance(made, Executor):
            raise NormlabError(f"{reference} to return a concurrent.futures.Executor", f"a {type(made).__name__}")
        return made

    return open_executor


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""A real Dask cluster: a scheduler and two worker processes on this machine, one of them killed on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from executor_work import work

from normlab.errors import NormlabError
from normlab.lab.executor import dask, run_all

# Dask's own, at the end of a client's loop.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def start(*arguments):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "info",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


def wait_for(process, pattern):
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"{pattern} never came")


@pytest.fixture
def cluster():
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    address = wait_for(scheduler, r"Scheduler at:\s+(tcp://\S+)")
    options = (address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    workers = [start("worker", *options) for _ in range(2)]
    for worker in workers:
        wait_for(worker, r"Registered to:\s+(\S+)")
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.communicate()


def test_a_cluster_that_loses_a_worker_loses_no_payload(cluster):
    address, workers = cluster
    payloads = {f"k{number}": "pid" for number in range(20)} | {"raises": "raise on purpose"}
    found = []
    for number, outcome in enumerate(run_all(dict(payloads), work, dask(address), 2)):
        found.append(outcome)
        if number == 3:
            workers[0].send_signal(signal.SIGKILL)
    assert sorted(key for key, _ in found) == sorted(payloads)
    found = dict(found)
    assert isinstance(found["raises"], ValueError)
    assert {found[f"k{number}"] for number in range(20)} == {str(worker.pid) for worker in workers}


def test_an_address_without_a_scheduler_is_one_clear_sentence():
    started = time.monotonic()
    with pytest.raises(NormlabError, match="expected a Dask scheduler at tcp"):
        dask("tcp://127.0.0.1:9")()
    assert time.monotonic() - started < 60

"""A real Dask cluster: a scheduler and two worker processes on this machine, one of them killed on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lab_zoo
import pytest
from distributed import Client
from executor_work import work
from test_lab_run import Counting, carried_out, plain, results

from normlab.errors import NormlabError
from normlab.lab import executor
from normlab.lab.ask import ask
from normlab.lab.executor import dask, dask_workers, run_all
from normlab.lab.run import run
from normlab.store import Runs


def start(*arguments):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
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


def start_worker(address):
    return start("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")


@pytest.fixture
def cluster():
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    address = wait_for(scheduler, r"Scheduler at:\s+(tcp://\S+)")
    workers = [start_worker(address) for _ in range(2)]
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


class Killing(Counting):
    """Kills a worker once a trial is done and every worker is at one."""

    def __init__(self, address, worker):
        super().__init__()
        self.address, self.worker = address, worker

    def finished(self, trial, result):
        super().finished(trial, result)
        if self.worker.poll() is None:
            with Client(self.address, set_as_default=False) as client:
                if all(client.processing().values()):
                    self.worker.kill()
                    self.worker.wait()


def test_a_study_whose_cluster_loses_a_worker_gives_what_it_gives_here(cluster, monkeypatch, tmp_path):
    address, workers = cluster
    asked = ask("mine", lab_zoo.study(recipe=lab_zoo.RECIPE.replace(epochs=20)), size="quick", seeds=6)
    (here,), _ = carried_out(asked)
    kept = results()
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "cluster"))
    assert dask_workers(address) == 2
    watcher = Killing(address, workers[0])
    (there,) = run([asked], Runs(), dask(address), 2, watcher=watcher)
    assert workers[0].poll() == -signal.SIGKILL
    assert sorted(watcher.done) == sorted(watcher.asked) == sorted(kept), "no trial lost, none doubled"
    assert Runs().failures() == {}
    assert results() == kept
    assert plain(there) == plain(here)


def test_a_cluster_without_workers_is_waited_for_and_told_of(cluster, monkeypatch):
    address, workers = cluster
    monkeypatch.setattr(executor, "LOOK", 0.2)
    for worker in workers:
        worker.kill()
        worker.wait()
    told = []

    def say(line):
        told.append(line)
        workers.append(start_worker(address))

    found = dict(run_all({"k": "pid"}, work, dask(address, say), 1))
    assert found == {"k": str(workers[-1].pid)}
    assert told == [f"waiting for a Dask worker at {address}; start one: dask worker {address} --nworkers -1"]


def test_an_address_without_a_scheduler_is_one_clear_sentence():
    started = time.monotonic()
    with pytest.raises(NormlabError, match="expected a Dask scheduler at tcp"):
        dask("tcp://127.0.0.1:9")()
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("address", ["localhost", "http://127.0.0.1:8786"])
def test_what_is_no_address_is_one_clear_sentence(address):
    with pytest.raises(NormlabError, match=f"expected --address as tcp://host:8786, got '{address}'"):
        dask_workers(address)

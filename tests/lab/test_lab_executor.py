"""Real processes that raise and die: each payload comes back exactly once, and costs itself alone."""

import concurrent.futures
import threading

import pytest
from executor_work import work

from normlab.errors import NormlabError
from normlab.lab.executor import Lost, local, named, run_all


def run(payloads, workers=2):
    found = list(run_all(dict(payloads), work, local(workers), workers))
    assert sorted(key for key, _ in found) == sorted(payloads)  # none lost, none doubled
    return dict(found)


def test_everything_comes_back_once():
    payloads = {f"k{number}": f"text {number}" for number in range(40)}
    assert run(payloads) == {key: payload.upper() for key, payload in payloads.items()}


def test_workers_are_other_processes_with_one_thread_each():
    pids = run({str(number): "pid" for number in range(6)})
    assert len(set(pids.values())) == 2
    assert set(run({"a": "threads"}).values()) == {"1"}


def test_what_raises_and_what_dies_costs_itself_alone(tmp_path):
    # First: it dies in the pool, as a victim of somebody else's memory would, and lives when run alone.
    payloads = {"unlucky": f"die-once {tmp_path / 'flag'}", "raises": "raise on purpose", "dies": "die"}
    payloads |= {f"k{number}": f"text {number}" for number in range(12)}
    found = run(payloads)
    assert isinstance(found["raises"], ValueError)
    assert str(found["raises"]) == "on purpose"
    assert isinstance(found["dies"], Lost)
    assert found["unlucky"].startswith("DIE-ONCE")
    assert all(found[f"k{number}"] == f"TEXT {number}" for number in range(12))


def test_nothing_to_do_opens_nothing():
    assert list(run_all({}, work, lambda: pytest.fail("opened"), 2)) == []


def threads():
    return concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="own")


def test_any_executor_serves():
    found = dict(run_all({"a": "x", "b": "raise y"}, work, named("test_lab_executor:threads"), 2))
    assert found["a"] == "X"
    assert isinstance(found["b"], ValueError)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("own")]
    with pytest.raises(NormlabError, match="to return a concurrent"):
        named("builtins:dict")()

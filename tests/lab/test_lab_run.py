"""Studies from end to end, with real worker processes: what runs once, what runs again, and what a kill costs."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lab_zoo
import pytest

from normlab import studies
from normlab.lab import Arm
from normlab.lab.ask import ask
from normlab.lab.clock import work_or_time
from normlab.lab.executor import local
from normlab.lab.measures import accuracy, step_seconds
from normlab.lab.rules import equivalent, superior
from normlab.lab.run import Watcher, missing, run
from normlab.lab.worker import work
from normlab.report.page import html
from normlab.store import Runs

HERE = Path(__file__).parent


class Counting(Watcher):
    def __init__(self):
        self.asked, self.done, self.verdicts = [], [], []

    def wanted(self, trials):
        self.asked += trials

    def finished(self, trial, result):
        self.done.append(trial)

    def concluded(self, verdict):
        self.verdicts.append(verdict.study)


def carried_out(*asks, workers=1, here=True, **how):
    """Verdicts and the trials that were run; in this process, which is quicker, where no worker is asked for."""
    watcher = Counting()
    opens = (lambda: ThreadPoolExecutor(1)) if here else local(workers)
    verdicts = run(asks, Runs(), opens, workers, watcher=watcher, **how)
    assert sorted(watcher.done) == sorted(watcher.asked)
    assert sorted(watcher.verdicts) == sorted(each.study for each in verdicts)
    return verdicts, watcher.done


def plain(verdict):
    return verdict.model_dump_json(exclude={"seconds"})


def results():
    return {record.trial: record.result for _, record in Runs().list()}


def asked(name="mine", seeds=2, **changes):
    return ask(name, lab_zoo.study(**changes), size="quick", seeds=seeds)


def test_one_and_two_workers_and_this_process_give_the_same(monkeypatch, tmp_path):
    told = []
    for number, how in enumerate(({"workers": 2, "here": False}, {"workers": 1, "here": False}, {})):
        monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / str(number)))
        (verdict,), done = carried_out(asked(seeds=3), **how)
        assert len(done) == 6
        told.append((plain(verdict), results()))
    assert told[0] == told[1] == told[2]


def test_a_process_trains_one_trial_at_a_time(monkeypatch):
    """In threads, as a Dask worker of several has them, trials would draw from one random stream."""
    running, most = [], []

    def train(recipe, dataset_of):
        running.append(recipe)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        raise OSError

    monkeypatch.setattr("normlab.train.train", train)
    with ThreadPoolExecutor(4) as threads:
        told = [*threads.map(work, [lab_zoo.RECIPE.model_dump_json()] * 8)]
    assert told == ['{"failed": "OSError"}'] * 8
    assert most == [1] * 8


def test_what_two_studies_want_runs_once_and_what_is_there_not_at_all():
    other = asked("other", seeds=3, rules=(superior("accuracy", "BN", "none"),))
    verdicts, done = carried_out(asked(), other)
    assert len(done) == 6
    assert [verdict.study for verdict in verdicts] == ["mine", "other"]
    before = results()
    again, done = carried_out(asked(), other)
    assert done == []
    assert [*map(plain, again)] == [*map(plain, verdicts)]
    assert [*Runs().verdicts().values()] == again
    again, done = carried_out(asked(), rerun=True)
    assert len(done) == len(set(done)) == 4
    assert results() == before
    assert plain(again[0]) == plain(verdicts[0])


def test_a_step_is_timed_by_itself_once_all_trials_are_done(monkeypatch):
    flying, seen = [], []

    def watched(payload):
        kind = "time" if "time" in json.loads(payload) else "trial"
        flying.append(kind)
        seen.append([*flying])
        told = work_or_time(payload)
        flying.remove(kind)
        return told

    monkeypatch.setattr("normlab.lab.run.work_or_time", watched)
    timed = {"timed": True, "measures": (accuracy, step_seconds)}
    asks = asked("first", **timed), asked("untimed", seeds=4), asked("second", seeds=3, **timed)
    verdicts = run(asks, Runs(), lambda: ThreadPoolExecutor(3), 3)
    assert [each for each in seen if "time" in each] == seen[-2:] == [["time"], ["time"]]
    for verdict in verdicts:
        assert ("step" in verdict.measures) == (verdict.study != "untimed")
    steps = [verdict.measures["step"].values for verdict in verdicts if verdict.study != "untimed"]
    assert all(seconds > 0 for values in steps for by_seed in values.values() for seconds in by_seed.values())
    seen.clear()
    again = run(asks, Runs(), lambda: pytest.fail("a worker is asked"), 3)
    assert [*map(plain, again)] == [*map(plain, verdicts)]
    assert not seen


def test_more_seeds_run_what_is_missing():
    (verdict,), done = carried_out(asked(seeds=2))
    wanted, found = missing(asked(seeds=3), Runs())
    assert ({trial.recipe.seed for trial in wanted}, len(wanted), len(found)) == ({2}, 2, 4)
    (more,), new = carried_out(asked(seeds=3))
    assert len(new) == 2
    assert not set(new) & set(done)
    assert more.key == verdict.key
    for arm, values in verdict.measures["accuracy"].values.items():
        assert more.measures["accuracy"].values[arm].items() >= values.items()
    assert len(Runs().verdicts()) == 1


def test_a_trial_that_raises_counts_apart_and_is_tried_again(monkeypatch, tmp_path):
    flag = tmp_path / "breaks"
    monkeypatch.setenv("LAB_ZOO_BREAKS", str(flag))
    flag.touch()
    odd = asked(
        recipe=lab_zoo.RECIPE.replace(model="lab_zoo:breaking", model_options={}),
        arms={"BN": Arm(), "none": Arm(model_options={"width": 7})},
    )
    (verdict,), done = carried_out(odd)
    assert len(done) == 4
    assert verdict.word == "inconclusive"
    assert set(verdict.measures["accuracy"].values["BN"]) == {0, 1}
    assert verdict.measures["accuracy"].values["none"] == {}
    assert verdict.arms["none"].unusable.keys() == {0, 1}
    assert "OSError: out of luck" in verdict.arms["none"].unusable[0]
    failures = Runs().failures()
    assert set(failures) == {ids[0] for ids in verdict.arms["none"].trials.values()}
    assert all("OSError: out of luck" in why and "\n" not in why for why in failures.values())
    _, again = carried_out(odd)
    assert set(again) == set(failures)
    flag.unlink()
    (mended,), again = carried_out(odd)
    assert set(again) == set(failures)
    assert Runs().failures() == {}
    assert mended.arms["none"].unusable == {}
    assert len(results()) == 4


def test_rules_that_changed_after_the_first_registration_show():
    (first,), _ = carried_out(asked())
    assert first.rules_before is None
    (changed,), done = carried_out(asked(rules=(equivalent("accuracy", "BN", "none", 0.5),)))
    assert done == []
    assert changed.rules_before == ("accuracy: BN and none differ by less than 0.05",)
    (back,), _ = carried_out(asked())
    assert back.rules_before is None


def test_a_worker_of_another_version_is_a_failure_that_says_so(monkeypatch):
    """Its source differs: the trial that it made has another id."""
    import normlab.train.run

    monkeypatch.setattr(normlab.train.run, "trial_id", lambda recipe: f"{recipe.seed:016x}")
    (verdict,), _ = carried_out(asked())
    assert results() == {}
    assert all("the worker has another version of something" in why for why in Runs().failures().values())
    assert len(Runs().failures()) == 4
    assert verdict.word == "inconclusive"


STUDY_FILE = """
import dataclasses
from lab_zoo import study
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Linear(5, 10))

STUDY = study(recipe=study().recipe.replace(model="a_study_elsewhere:build", model_options={}))
"""


def test_workers_find_what_a_study_file_names_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "a_study_elsewhere.py"
    file.write_text(STUDY_FILE)
    (verdict,), done = carried_out(ask("theirs", studies.find(str(file)), size="quick"), here=False)
    assert len(done) == 4
    assert Runs().failures() == {}
    assert verdict.measures["accuracy"].values["BN"].keys() == {0, 1}


# --- kills ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from lab_zoo import study
from normlab.lab.ask import ask
from normlab.lab.executor import local
from normlab.lab.run import Watcher, run
from normlab.store import Runs

class Telling(Watcher):
    def finished(self, trial, result):
        print(trial, flush=True)

if __name__ == "__main__":
    run([ask("mine", study(), size="standard")], Runs(), local(2), 2, watcher=Telling())
"""


def start(home, script):
    environment = os.environ | {"NORMLAB_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def workers_of(parent):
    """The processes of a session but for its leader, and what loky watches its semaphores with."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            tracker = b"resource_tracker" in (folder / "cmdline").read_bytes()
            if int(words[3]) == parent and words[0] != "Z" and int(folder.name) != parent and not tracker:
                found.append(int(folder.name))
    return found


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def untimed(page):
    return re.sub(r"<(\w+)([^>]*\bdata-timing\b[^>]*)>.*?</\1>", "", page, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes as Linux tells of them")
def test_ten_kills_of_the_parent_and_ten_of_workers(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (untouched,), done = carried_out(ask("mine", lab_zoo.study(), size="standard"))
    assert len(done) == 16
    kept, draw, home, killed = results(), random.Random(0), tmp_path / "other", 0
    monkeypatch.setenv("NORMLAB_HOME", str(home))
    orphans = []
    for number in range(10):  # of the parent: before, while and after its workers start
        process = start(home, script)
        if number % 2:
            process.stdout.readline()
        time.sleep(draw.uniform(0, 1.5 if number % 2 else 6.0))
        orphans += workers_of(process.pid)
        os.killpg(process.pid, 0)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        if len(Runs().list()) > 12:  # else the rest of the kills would find nothing to interrupt
            Runs().remove(draw.sample(sorted(results()), 8))
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in orphans), 15)
    assert killed >= 8
    assert orphans, "else the kills found no worker at work"
    Runs().remove(list(results()))
    killed = 0
    while True:  # of workers: until ten were killed, and what they were at is done
        process = start(home, script)
        lacking = 16 - len(results())
        while process.poll() is None:
            time.sleep(draw.uniform(0, 1.0))
            if killed < 10 and (workers := workers_of(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    killed += 1
        told = process.communicate()[0].split()
        assert process.returncode == 0
        assert len(told) == len(set(told)) == lacking, "no trial lost, none doubled"
        if killed == 10 and not Runs().failures():
            break  # three kills in a row of the process that works on a trial alone: it is told, and run again
        Runs().remove(draw.sample(sorted(results()), 8) if killed < 10 else [])
    assert results() == kept
    (verdict,) = Runs().verdicts().values()
    assert json.loads(plain(verdict)) == json.loads(plain(untouched))
    assert untimed(html([verdict])) == untimed(html([untouched]))


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False

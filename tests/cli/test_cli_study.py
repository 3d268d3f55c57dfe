"""normlab study: list, run, show and report; what it takes, what it says, and that nothing is ever lost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from normlab import studies
from normlab.store import Runs

HERE = """
from concurrent.futures import ThreadPoolExecutor
def here(): return ThreadPoolExecutor(1)
def build(width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width), nn.Linear(width, 10))
"""
STUDY = """
from normlab.lab import RECIPE, Arm, Study, accuracy, sizes
from normlab.lab.rules import superior
from normlab.surgery import swap

STUDY = Study(
    question="Is my norm better?", claim="It is.", source="me", recipe=RECIPE, measures=(accuracy,), sizes=sizes(),
    arms={"BN": Arm(), "mine": Arm(swap("batch", "users:OtherNorm"))},
    rules=(superior("accuracy", "mine", "BN"),),
    answers={"supported": "Yes.", "contradicted": "No: {effect}.", "inconclusive": "Perhaps."},
)
"""
OWN = ("--data", "users:data", "--model", "users:build")
TINY = (*OWN, "--seeds", 2)
IN_THIS_PROCESS = ("--executor", "users:here", "--workers", 1)


@pytest.fixture(autouse=True)
def own(users):
    with (users / "users.py").open("a") as module:
        module.write(HERE)
    (users / "question.py").write_text(STUDY)
    (users / "more").mkdir()
    for name, source in (("exits", "raise SystemExit(3)"), ("numpy", STUDY), ("my.study", STUDY)):
        (users / "more" / f"{name}.py").write_text(source)
    yield
    sys.modules.pop("question", None)


def test_list_has_every_study_with_its_trials(normlab):
    rows = normlab("study", "list", "--json").json
    assert [row["study"] for row in rows] == studies.names()
    assert all(min(row["trials"].values()) > 0 and row["question"].endswith("?") for row in rows)
    header, *lines = normlab("study", "list").out.splitlines()
    assert header.split("\t") == ["study", "quick", "standard", "full", "question"]
    assert [line.split("\t")[0] for line in lines] == studies.names()


def test_a_dry_run_runs_nothing_and_writes_nothing(normlab, left):
    before = left()
    outcome = normlab("study", "run", "bias", "affine", *TINY, "--dry-run", "--workers", 2)
    assert (outcome.code, outcome.err) == (0, "")
    header, bias, affine, total = (line.split("\t") for line in outcome.out.splitlines())
    assert header[:3] == ["study", "there", "trials"]
    assert bias[:3] == ["bias", "0", "4"]
    assert affine[0] == "affine"
    assert total[0].startswith(f"{int(bias[2]) + int(affine[2])} trials to run with 2 workers")
    told = normlab("study", "run", "bias", *TINY, "--dry-run", "--json").json
    assert {**told, "bias": {**told["bias"], "seconds": 0}} == {"bias": {"there": 0, "trials": 4, "seconds": 0}}
    assert left() == before
    assert not Runs().path.parent.exists()


def test_a_dry_run_says_what_would_fail_in_every_trial(normlab, users):
    for options in (["--dry-run"], []):
        outcome = normlab("study", "run", "bias", *TINY, "--norm", "users:norm_none", *options)
        assert outcome.code == 2
        assert outcome.err.startswith(
            "normlab: arm 'with bias' of study bias: expected users:norm_none to make an nn.Module"
        )
        assert not Runs().path.exists()


def test_run_show_and_report_in_processes_of_their_own(spawn, normlab, users):
    process = spawn("study", "run", "bias", *TINY, "--workers", 2, "--report", "report.html", "--json")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    (verdict,) = Runs().verdicts().values()
    assert f"bias: {verdict.word}. {verdict.sentence}" in out
    assert "4 trials in " in out
    deciding = verdict.deciding
    assert json.loads(out.splitlines()[-1]) == {
        "bias": {
            "verdict": verdict.word,
            "n": deciding.n,
            "effect": deciding.effect,
            "interval": [deciding.low, deciding.high],
            "p": deciding.p,
            "size": "quick",
            "seconds": verdict.seconds,
        }
    }
    assert verdict.question in (users / "report.html").read_text()
    assert {record.recipe.model for _, record in Runs().list()} == {"users:build"}

    again = normlab("study", "run", "bias", *TINY, *IN_THIS_PROCESS, "--report", "report.md", "--json")
    assert "0 trials to run" in again.out
    assert again.json == json.loads(out.splitlines()[-1]), "asking twice costs nothing"
    more = normlab("study", "run", "bias", *OWN, "--seeds", 3, *IN_THIS_PROCESS, "--json")
    assert more.json["bias"]["n"] == 3
    assert "2 trials to run" in more.out, "seeds are added"

    assert normlab("study", "show", "bias").out.startswith(f"{verdict.word}: {verdict.question}")
    assert normlab("study", "show", verdict.key[:6], "--json").json["study"] == "bias"
    assert normlab("study", "report", "one.md", "--study", "bias", "--size", "quick").code == 0
    assert "normlab study run bias" in (users / "one.md").read_text()
    assert normlab("study", "report", "--format", "md").last.endswith("report.md")


def test_a_study_of_the_users_own(normlab, users):
    outcome = normlab("study", "run", "question.py", *TINY, *IN_THIS_PROCESS, "--report", "r.html", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json.keys() == {"question.py"}
    assert "Is my norm better?" in (users / "r.html").read_text()


RUN, REPORT, SHOW = ("study", "run"), ("study", "report"), ("study", "show")
MISTAKES = [
    ((*RUN, "bais"), "did you mean bias?"),
    ((*RUN, "nowhere.py"), "expected a file with a STUDY, got no file nowhere.py"),
    ((*RUN, "users.py"), "expected a STUDY in users.py, got none"),
    ((*RUN, "more/exits.py"), "expected the study more/exits.py to import, got SystemExit: 3; mend it"),
    ((*RUN, "more/numpy.py"), "of its own, got more/numpy.py and a module numpy ("),
    ((*RUN, "more/my.study.py"), "without a dot in its name, got more/my.study.py; rename it"),
    ((*RUN, "bias", "--size", "big"), 'Choose from: "quick", "standard", "full"'),
    ((*RUN, "bias", "--seeds", 0), "expected --seeds of at least 1, got 0"),
    ((*RUN, "bias", "--workers", 0, *OWN), "expected --workers of at least 1, got 0"),
    ((*RUN, "bias", "--address", "tcp://x:1", *OWN), "expected --backend dask with --address"),
    ((*RUN, "bias", "--backend", "dask", *OWN), "expected --address of a Dask scheduler"),
    ((*RUN, "bias", "--executor", "users:thing", *OWN), "expected a callable as an executor"),
    ((*RUN, "bias", "--model", "lenett"), "did you mean lenet?"),
    ((*RUN, "bias", "--data", "digit"), "did you mean digits?"),
    ((*RUN, "bias", "--norm", "bacht", *OWN), "did you mean batch?"),
    ((*RUN, "affine", "--norm", "none", "--data", "users:data"), "leave out --norm"),
    ((*RUN, "bias", "--model-options", "width", *OWN), "expected an option as k=v"),
    ((*RUN, "bias", "--model-options", "wdith=3", *OWN), "did you mean width?"),
    ((*RUN, "bias", "--report", "x.pdf"), "expected a report as .html or .md, got 'x.pdf'"),
    ((*RUN, "bias", "--report", "nowhere/x.html"), "expected a report in a folder that is there, got nowhere"),
    ((*RUN, "bias", "--report", "users.py/x.html"), "expected a report in a folder that is there, got users.py"),
    ((*SHOW, "bais"), "expected a known study, got 'bais'; did you mean bias?"),
    ((*SHOW, "bias"), "expected a verdict on bias, got none; run it: normlab study run bias"),
    ((*SHOW, "bias", "--size", "full"), "expected a verdict on bias at size full, got none"),
    (REPORT, "expected a study that was run, got none in "),
    ((*REPORT, "x.html", "--study", "bias"), "expected a verdict on bias, got none"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: None if isinstance(value, str) else "")
def test_a_mistake_costs_one_line(normlab, left, arguments, message):
    before = left()
    outcome = normlab(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "bug" not in outcome.err
    assert left() == before
    assert not Runs().path.exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("users:model", "expected a model with batch norms for study bias, got none in users:model"),
        ("users:model_raises", "got RuntimeError: first line"),
    ],
)
def test_what_would_fail_in_every_trial_fails_before_the_first(normlab, model, message):
    outcome = normlab("study", "run", "bias", "--data", "users:data", "--model", model)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not Runs().path.exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(normlab, users):
    (users / "locked").mkdir(mode=0o500)
    outcome = normlab("study", "run", "bias", *TINY, "--report", "locked/x.html")
    assert outcome.code == 2
    assert "expected a report in a folder that may be written to, got locked" in outcome.err


def test_a_report_that_cannot_be_written_after_all_loses_no_verdict(normlab, users, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("normlab.cli.study.write_atomically", full)
    outcome = normlab("study", "run", "bias", *TINY, *IN_THIS_PROCESS, "--report", "x.html")
    assert outcome.code == 2
    assert outcome.err == (
        "normlab: expected to write the report x.html, got No space left on device; free the disk, or name another\n"
    )
    assert len(Runs().verdicts()) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends other signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_nothing_is_lost_and_the_same_command_goes_on(spawn, normlab, number, code):
    """The signal goes to the workers too, as a terminal sends it."""
    command = ("study", "run", "bias", "--data", "users:data", "--seeds", 6)
    process = spawn(*command, "--workers", 1, start_new_session=True)
    until = time.monotonic() + 100
    while not Runs().list() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "normlab: interrupted\n")
    done = len(Runs().list())
    assert 1 <= done < 12
    assert Runs().verdicts() == {}
    left = subprocess.run(["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True).stdout
    ours = [line.split()[1] for line in left.splitlines() if line.split()[0] == str(process.pid)]
    assert all(state.startswith("Z") for state in ours), "no worker goes on alone"
    outcome = normlab(*command, *IN_THIS_PROCESS, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{12 - done} trials to run" in outcome.out
    assert f"{12 - done} trials in " in outcome.out
    assert outcome.json["bias"]["n"] == 6

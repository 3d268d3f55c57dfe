import os
import subprocess
import sys

import pytest

import normlab as package

COMMANDS = {
    (): (
        "train",
        "study",
        "compare",
        "check",
        "measure",
        "explain",
        "laws",
        "bench",
        "data",
        "runs",
        "doctor",
        "--version",
        "--debug",
    ),
    ("train",): (
        "torchrun",
        "--shares",
        "--no-sync",
        "--model",
        "--norm",
        "--resume",
        "--plot",
        "--json",
        "--store",
        "--batch-size",
        "fashion-mnist",
    ),
    ("compare",): ("--as", "--margin", "--tune", "--plot", "--workers", "--dry-run", "--json"),
    ("measure",): ("signal", "activations", "landscape", "sharpness"),
    ("measure", "signal"): ("--of", "--skip", "--model-options", "--data", "--batch", "--mode", "--output", "--json"),
    ("measure", "activations"): ("--of", "--examples", "--classes", "--seed", "--device"),
    ("measure", "landscape"): ("--lr", "--points", "--batch"),
    ("measure", "sharpness"): ("--count", "--iterations", "--mode"),
    ("study",): ("list", "run", "show", "report"),
    ("study", "run"): ("--size", "--seeds", "--workers", "--dry-run", "--report", "--json", "--norm"),
    ("bench",): ("train", "kernels"),
    ("bench", "train"): ("lenet-relu", "--peers", "--threads", "--rounds", "--steps", "--seconds-to", "--json"),
    ("check",): ("--weights", "--batch", "--data", "--select", "--ignore", "--format", "--train"),
    ("explain",): ("covariance", "NL101", "--rules", "--output"),
    ("laws",): ("batch", "--kind", "--dim", "--json"),
    ("data",): ("fashion-mnist", "--json"),
    ("doctor",): ("--json",),
    ("runs",): ("list", "show", "export", "import", "prune"),
    ("runs", "list"): ("--store", "--json"),
    ("runs", "show"): ("--store", "--json"),
    ("runs", "export"): ("csv", "jsonl", "--output"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_everything(normlab, command):
    outcome = normlab(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    squeezed = "".join(outcome.out.replace("│", "").split())
    assert [word for word in COMMANDS[command] if word not in squeezed] == []


def test_help_fits_a_narrow_terminal():
    done = subprocess.run(
        [sys.executable, "-m", "normlab", "train", "--help"],
        env=os.environ | {"COLUMNS": "30"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 30


def test_a_bare_command_is_its_help(normlab):
    for command in ((), ("runs",)):
        assert normlab(*command).out == normlab(*command, "--help").out


def test_version(normlab):
    assert normlab("--version").out == f"{package.__version__}\n"


def test_torch_waits_until_it_is_needed(tmp_path):
    """A second for torch is too long for `--help`."""
    code = """
import sys
def loaded(what):
    heavy = {"torch", "numpy", "altair", "sklearn"} & set(sys.modules)
    if heavy:
        print(what, "loads", *heavy)
import normlab
loaded("import normlab")
import normlab.store
loaded("import normlab.store")
assert {"Recipe", "nn", "train"} <= set(dir(normlab)) and normlab.Runs and normlab.NormlabError
loaded("normlab.Runs")
from normlab.cli import main
def run(command):
    try:
        main(command.split())
    except SystemExit as ended:
        assert not ended.code, (command, ended.code)
    loaded(command)
import io
out, sys.stdout = sys.stdout, io.StringIO()
for command in sys.argv[1:]:
    run(command)
sys.stdout = out
loaded("all of it")
"""
    commands = ["--help", "--version", *(f"{' '.join(each)} --help" for each in COMMANDS), "runs list", "runs export"]
    commands += ["explain", "explain momentum", "explain NL101"]
    done = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_list_of_studies_waits_for_torch_alone():
    """The compiler and all of scipy.stats are two seconds more, for every command that only looks something up."""
    code = """
import sys
import normlab.studies
print(*sorted({"torch._dynamo", "scipy.stats", "scipy.optimize", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_python_minus_m_and_a_terminal_that_knows_no_unicode(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "normlab", "runs", "list", "--store", "ü/[red]:smile:.db"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "20"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no runs in \\xfc/[red]:smile:.db yet")

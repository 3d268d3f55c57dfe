import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from normlab import data
from normlab.kernels import build, serving
from normlab.store import Runs


def test_a_fresh_machine_is_well_enough(normlab):
    outcome = normlab("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    marks = {line.split()[1].rstrip(":"): line.split()[0] for line in outcome.out.splitlines()}
    assert set(marks) == {"python", "torch", "compiler", "kernels", "data", "store"}
    assert marks["data"] == "look"
    assert "normlab data fashion-mnist" in outcome.out
    assert not Path(os.environ["NORMLAB_HOME"]).exists(), "a doctor makes nothing"


def test_json(normlab):
    report = normlab("doctor", "--json").json
    assert set(report) == {"python", "torch", "compiler", "kernels", "data", "store"}
    assert all(set(finding) == {"ok", "found", "do"} for finding in report.values())


def kernels_in(folder, monkeypatch):
    """A folder of small sources for the kernels."""
    sources = folder / "kernels"
    sources.mkdir()
    (sources / "one.cpp").write_text("int one() { return 1; }\n")
    monkeypatch.setattr(serving, "SOURCES", sources)
    return sources


def test_without_a_compiler(normlab, monkeypatch, tmp_path):
    kernels_in(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    outcome = normlab("doctor")
    assert outcome.code == 0, "plain torch runs"
    assert "look compiler: no C++ compiler; install g++\n" in outcome.out
    assert "look kernels: plain torch: no C++ compiler; install g++\n" in outcome.out


def test_a_compiler_by_its_variable(normlab, monkeypatch, tmp_path):
    compiler = tmp_path / "[my]-c++"
    compiler.write_text("#!/bin/sh\necho my compiler 1.0\necho all rights reserved\n")
    compiler.chmod(0o755)
    kernels_in(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", compiler.name)
    out = normlab("doctor").out
    assert f"ok   compiler: my compiler 1.0 at {compiler}\n" in out
    assert f"ok   kernels: native, to be compiled at first use by my compiler 1.0 at {compiler}\n" in out


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("g++"), reason="needs g++")
def test_kernels_that_are_compiled(normlab, monkeypatch, tmp_path):
    build.plan(kernels_in(tmp_path, monkeypatch)).make()
    assert "ok   kernels: native, compiled for this machine\n" in normlab("doctor").out


def test_kernels_that_somebody_chose(normlab, monkeypatch):
    monkeypatch.setenv("NORMLAB_KERNELS", "reference")
    assert "ok   kernels: reference, as NORMLAB_KERNELS asks\n" in normlab("doctor").out
    monkeypatch.setenv("NORMLAB_KERNELS", "fast")
    outcome = normlab("doctor")
    assert outcome.code == 0
    assert "look kernels: NormlabError: expected native or reference in NORMLAB_KERNELS, got 'fast'" in outcome.out


def test_damaged_data(normlab):
    path = data.describe("fashion-mnist").path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 1000)
    outcome = normlab("doctor")
    assert outcome.code == 0, "it is fetched anew when it is needed"
    assert "look data: fashion-mnist damaged" in outcome.out
    assert "; normlab data fashion-mnist" in outcome.out


def newer(home):
    Runs().prepare()
    with sqlite3.connect(Runs().path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def a_file(home):
    home.write_text("")


def no_store(home):
    home.mkdir()
    (home / "runs.db").write_text("my notes")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (newer, "got version 99; update normlab"),
        (a_file, "may not be written to"),
        (no_store, "got file is not a database"),
    ],
)
def test_a_store_that_cannot_be_used_fails(normlab, make, found):
    make(Path(os.environ["NORMLAB_HOME"]))
    outcome = normlab("doctor")
    assert (outcome.code, outcome.err) == (2, "")
    [line] = [line for line in outcome.out.splitlines() if " store: " in line]
    assert line.startswith("look store: ")
    assert found in line
    assert normlab("doctor", "--json").json["store"]["ok"] is False


def test_runs_are_counted(normlab):
    Runs().prepare()
    assert f"ok   store: 0 runs in {Runs().path}\n" in normlab("doctor").out

import contextlib
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys

import pytest

import records
from normlab.store import Record, Runs, trial_id


@pytest.fixture
def filled():
    """Three runs: a plain one, one that broke off, and one with names as odd as names can be."""
    runs = Runs()
    added = [
        records.record(trial="a" * 16, validation=True),
        records.record(2, trial="ab" * 8, nonfinite=True),
        records.record(trial="c" * 16, model='[red]größe[/]:<b>,"x"', model_options={"ü": ["é", 1.5]}),
    ]
    for record in added:
        runs.add(record)
    return added


def test_an_empty_store(normlab, tmp_path):
    assert normlab("runs", "list").out.startswith(f"no runs in {Runs().path} yet: try `normlab train ")
    assert normlab("runs", "list", "--json").json == []
    assert normlab("runs", "export").out == "trial\n"
    assert normlab("runs", "export", "--format", "jsonl").out == ""
    assert not Runs().path.exists()


def test_list_is_tab_separated_where_a_program_reads_it(normlab, filled):
    outcome = normlab("runs", "list")
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = (line.split("\t") for line in outcome.out.splitlines())
    assert {len(row) for row in rows} == {len(header)}
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["trial"] for row in found] == [record.trial for record in filled]
    assert [row["model"] for row in found] == [record.recipe.model for record in filled]
    assert [row["examples_per_s"] for row in found] == ["15123"] * 3
    assert found[1]["loss"] == "-"


def test_list_as_json_is_the_rows_of_the_table(normlab, filled):
    rows = normlab("runs", "list", "--json").json
    assert [row["trial"] for row in rows] == [record.trial for record in filled]
    assert (rows[0]["loss"], rows[1]["loss"]) == (filled[0].last.train_loss, None)
    assert rows[0]["precise_validation_acc"] == 0.89


def test_show_by_a_prefix(normlab, filled):
    outcome = normlab("runs", "show", "c")
    assert (outcome.code, outcome.err) == (0, "")
    for text in (
        '  model: [red]größe[/]:<b>,"x"\n',
        "  lr: 1.0\n",
        "recomputed",
        "parameters: 44878; trial cccc",
        "Linux",
    ):
        assert text in outcome.out
    assert normlab("runs", "show", "ab", "--json").out == filled[1].model_dump_json() + "\n"
    assert normlab("runs", "show", "a").code == 2


def test_export_as_csv(normlab, filled, tmp_path):
    rows = list(csv.DictReader(io.StringIO(normlab("runs", "export").out)))
    assert [row["model"] for row in rows] == [record.recipe.model for record in filled]
    assert json.loads(rows[2]["model_options"]) == {"ü": ["é", 1.5]}
    assert float(rows[0]["loss"]) == filled[0].last.train_loss
    assert (rows[1]["loss"], rows[1]["nonfinite_step"]) == ("", "7")
    assert rows[0]["machine_cores"] == "2"


def test_export_of_records_that_name_other_things(normlab, filled):
    Runs().add(filled[0].model_copy(update={"trial": "d" * 16, "versions": {"kernels": "3"}, "machine": {}}))
    rows = list(csv.DictReader(io.StringIO(normlab("runs", "export").out)))
    assert [row["version_kernels"] for row in rows] == ["", "", "", "3"]
    assert [row["version_torch"] for row in rows] == ["2.13.0"] * 3 + [""]


def test_export_as_jsonl_holds_everything(normlab, filled):
    lines = normlab("runs", "export", "--format", "jsonl").out.splitlines()
    assert [Record.model_validate_json(line) for line in lines] == filled


def test_export_into_a_file(normlab, filled, users):
    outcome = normlab("runs", "export", "--output", "deep/runs.csv")
    assert outcome.out == f"3 runs: {users / 'deep' / 'runs.csv'}\n"
    assert (users / "deep" / "runs.csv").read_bytes() == normlab("runs", "export").out.encode()
    for bad in ("deep", "", "deep/runs.csv/below"):
        outcome = normlab("runs", "export", "--output", bad)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("normlab: expected to write the table ")
        assert len(outcome.err.splitlines()) == 1
    assert [each.name for each in (users / "deep").iterdir()] == ["runs.csv"]


@pytest.mark.parametrize("command", ["runs list", "runs export", "runs show c", "--help"])
def test_a_reader_that_has_gone_is_nothing_to_talk_about(filled, command):
    """As in `normlab runs list | head -1`, here with the other end closed before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "normlab", *command.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 1 is rich's


@pytest.fixture
def mixed(users):
    """A record that this version would make again, two that it would not, one of a module elsewhere, a failure."""
    runs = Runs()
    usable = records.record(model="users:model")
    usable = usable.model_copy(update={"trial": trial_id(usable.recipe)})
    stale = [records.record(trial="a" * 16), records.record(trial="b" * 16, data="users:data")]
    elsewhere = records.record(trial="c" * 16, model="of_a_classmate:build")
    for record in (usable, *stale, elsewhere):
        runs.add(record)
    runs.fail("d" * 16, usable.recipe, "out of memory")
    return runs


def test_prune_drops_what_cannot_be_reused_and_failures(normlab, mixed):
    before = mixed.list()
    dry = normlab("runs", "prune", "--dry-run")
    assert dry.last == (
        "2 records and 1 failures would be dropped, 2 kept, 1 of them with modules that are not found from here"
    )
    assert (mixed.list(), len(mixed.failures())) == (before, 1)
    assert normlab("runs", "prune", "--json").json == {"records": 2, "failures": 1, "kept": 2, "unknown": 1}
    assert {record.recipe.model for _, record in mixed.list()} == {"users:model", "of_a_classmate:build"}
    assert mixed.failures() == {}
    assert normlab("runs", "prune").last.startswith("0 records and 0 failures dropped, 2 kept")


def test_prune_of_nothing_makes_nothing(normlab):
    assert normlab("runs", "prune").out == "0 records and 0 failures dropped, 0 kept\n"
    assert not Runs().path.exists()


def test_import_takes_over_what_is_new(normlab, mixed, users):
    theirs = mixed.path.rename(users / "theirs.db")
    Runs().add(records.record(trial="a" * 16, lr=0.5))
    before = theirs.read_bytes()
    outcome = normlab("runs", "import", "theirs.db", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("3 new records from theirs.db, of which this version can use 1\n")
    assert outcome.json == {"new": 3, "usable": 1}
    assert len(Runs().list()) == 4
    assert Runs().get("a" * 16).recipe.lr == 0.5, "one's own stays"
    assert theirs.read_bytes() == before
    assert normlab("runs", "import", "theirs.db").out.startswith("0 new records")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no file at theirs.db"),
        (lambda path: path.mkdir(), "no store at theirs.db"),
        (lambda path: path.touch(), "no store at theirs.db"),
        (lambda path: path.write_text("my notes"), "file is not a database"),
        (lambda path: path.write_bytes(sqlite_of(99)), "got version 99; update normlab"),
    ],
)
def test_import_of_what_is_no_store(normlab, users, left, make, message):
    make(users / "theirs.db")
    before = left()
    outcome = normlab("runs", "import", "theirs.db")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert left() == before
    assert not Runs().path.exists()


def sqlite_of(version):
    runs = Runs("newer.db")
    runs.prepare()
    with contextlib.closing(sqlite3.connect("newer.db")) as database:
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    return runs.path.read_bytes()

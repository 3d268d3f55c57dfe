import csv
import io
import json
import os
import subprocess
import sys

import pytest

import records
from normlab.store import Record, Runs


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

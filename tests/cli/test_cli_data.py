import pytest

from normlab.data import NAMES


def test_the_table_names_every_set_and_where_it_lies(normlab):
    outcome = normlab("data")
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = (line.split("\t") for line in outcome.out.splitlines())
    assert header == ["name", "status", "what", "where"]
    assert tuple(row[0] for row in rows) == NAMES
    found = normlab("data", "--json").json
    assert {name: facts["status"] for name, facts in found.items()} == {row[0]: row[1] for row in rows}


@pytest.mark.parametrize(
    ("name", "line", "facts"),
    [
        ("digits", "1437 train, 360 test; shape (1, 28, 28), 10 classes; verified", [1, 28, 28]),
        ("digits-8x8", "1437 train, 360 test; shape (1, 8, 8), 10 classes; verified", [1, 8, 8]),
        ("users:data", "40 train, 20 test; shape (1, 28, 28), 10 classes; verified", [1, 28, 28]),
    ],
)
def test_a_set_is_loaded_and_counted(normlab, users, name, line, facts):
    outcome = normlab("data", name, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == f"{name}: {line}"
    assert outcome.json[name]["shape"] == facts


def test_several_at_once_and_one_that_is_none(normlab, users):
    assert list(normlab("data", "digits", "users:data", "--json").json) == ["digits", "users:data"]
    outcome = normlab("data", "digits", "digitz")
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "did you mean digits?" in outcome.err

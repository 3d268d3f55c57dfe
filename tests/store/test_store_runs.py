import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import records
from normlab.errors import NormlabError
from normlab.store import Runs


def python(code, *arguments, **options):
    """A process of its own, that adds records with `records.record`."""
    tests = str(Path(records.__file__).parent)
    preamble = f"import sys; sys.path.append({tests!r})\nfrom normlab.store import Runs\nfrom records import record\n"
    return subprocess.Popen(
        [sys.executable, "-c", preamble + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(added=st.lists(records.records, min_size=1, max_size=3, unique_by=lambda each: each.trial))
def test_what_is_added_comes_back(added, tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("store") / "runs.db")
    for record in added:
        runs.add(record)
    assert {record.trial: record for _, record in runs.list()} == {record.trial: record for record in added}
    for record in added:
        assert runs.get(record.trial) == record


def test_the_store_lies_in_the_home_or_where_one_says(tmp_path):
    assert Runs().path == Path(os.environ["NORMLAB_HOME"]) / "runs.db"
    assert Runs(tmp_path / "a.db").path == Runs(str(tmp_path / "a.db")).path == tmp_path / "a.db"


def test_reading_makes_nothing(tmp_path):
    runs = Runs(tmp_path / "deep" / "runs.db")
    assert runs.list() == []
    with pytest.raises(NormlabError, match=r"got none; see `normlab runs list` .store: .*runs.db"):
        runs.get("0")
    assert [each.name for each in tmp_path.iterdir()] == []


def test_prepare_makes_an_empty_store_and_leaves_a_full_one(tmp_path):
    runs = Runs(tmp_path / "deep" / "runs.db")
    runs.prepare()
    assert runs.list() == []
    runs.add(records.record())
    runs.prepare()
    assert len(runs.list()) == 1
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["runs.db"], "no journal stays"


def test_one_trial_is_kept_once_with_its_newest_times(tmp_path):
    runs = Runs(tmp_path / "runs.db")
    runs.add(records.record(3))
    runs.add(records.record(4))
    assert [len(record.result.epochs) for _, record in runs.list()] == [4]


def test_oldest_first(tmp_path):
    runs = Runs(tmp_path / "runs.db")
    for trial in ("b" * 16, "a" * 16, "c" * 16):
        runs.add(records.record(trial=trial))
    with sqlite3.connect(runs.path) as database:
        database.execute("UPDATE trials SET finished = '1999-12-31T00:00:00Z' WHERE id LIKE 'c%'")
    database.close()
    assert [record.trial[0] for _, record in runs.list()] == ["c", "a", "b"]
    assert runs.list()[0][0] == "1999-12-31T00:00:00Z"


def test_a_prefix_names_one_run_or_none(tmp_path):
    runs = Runs(tmp_path / "runs.db")
    trials = [f"{start:0<16}" for start in ("a", "ab", "abc", "abd1", "abd2", "b")]
    for trial in trials:
        runs.add(records.record(trial=trial))
    assert runs.get("abc").trial == trials[2]
    assert runs.get(trials[0]).trial == trials[0], "the whole of it is never ambiguous"
    for prefix, got in [
        ("abd", f"2: {trials[3]}, {trials[4]}; give more of its digits"),
        ("", f"6: .*{trials[3]}, [.]{{3}}; give more of its digits"),
        ("z", "none; see"),
        ("%", "none; see"),
        ("a_", "none; see"),
        ("A", "none; see"),
        (trials[0] + "0", "none; see"),
    ]:
        with pytest.raises(NormlabError, match=f"begins with '{prefix}', got {got}"):
            runs.get(prefix)


def test_the_only_run_needs_a_prefix_too(tmp_path):
    runs = Runs(tmp_path / "runs.db")
    runs.add(records.record())
    with pytest.raises(NormlabError, match="got 1: 0123456789abcdef; give more"):
        runs.get("")


def newer(path):
    Runs(path).prepare()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def others(path, version=0):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE trials (id)")
        database.execute(f"PRAGMA user_version = {version}")
    database.close()


def damaged(path):
    Runs(path).add(records.record(40))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def wrong_record(path):
    Runs(path).add(records.record())
    with sqlite3.connect(path) as database:
        database.execute("UPDATE trials SET record = json_remove(record, '$.result.parameters')")
    database.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (newer, "a runs store of version 2 or older at .*, got version 99; update normlab"),
        (others, "got another program's database; name another file"),
        (lambda path: others(path, 1), "got another program's database; name another file"),
        (lambda path: others(path, 99), "got another program's database; name another file"),
        (lambda path: path.write_text("my notes"), "got file is not a database"),
        (lambda path: path.write_text("my notes, longer\n" * 1000), "got file is not a database"),
        (Path.mkdir, "got unable to open database file"),
        (damaged, "got database disk image is malformed"),
        (wrong_record, "trial 0123456789abcdef in .* as version 2 keeps it, got another .1 of its fields"),
    ],
)
def test_what_is_no_store_is_told_in_one_line_and_left_alone(tmp_path, make, message):
    path = tmp_path / "runs.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    calls = [Runs(path).list, lambda: Runs(path).get("0")]
    if make is not wrong_record:
        calls += [Runs(path).prepare, lambda: Runs(path).add(records.record(trial="f" * 16))]
    if make is damaged:  # one page of it: the others can be read
        calls = [Runs(path).list]
    for call in calls:
        with pytest.raises(NormlabError, match=message) as raised:
            call()
        assert len(str(raised.value).splitlines()) == 1
        assert "Runs" not in str(raised.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [each.name for each in tmp_path.iterdir()] == ["runs.db"]


def test_one_wrong_record_hides_no_other(tmp_path):
    path = tmp_path / "runs.db"
    wrong_record(path)
    Runs(path).add(records.record(trial="f" * 16))
    assert Runs(path).get("f").trial == "f" * 16


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    runs = Runs(tmp_path / "file" / "runs.db")
    with pytest.raises(NormlabError, match=r"at .*, got .*Errno"):
        runs.prepare()


READ_ONLY = """
import os
if os.getuid() == 0:
    os.setuid(65534)  # root may write everywhere
for name in ("list", "prepare", "add"):
    try:
        found = getattr(Runs(sys.argv[1]), name)(*([record(trial="f" * 16)] if name == "add" else []))
        print(name, "gave", found and len(found))
    except Exception as error:
        print(name, "raised", type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
@pytest.mark.parametrize(
    ("folder", "file", "read"),
    [(0o555, 0o444, True), (0o555, 0o000, False), (0o000, 0o444, False)],
    ids=["all may be read", "the file may not be read", "the folder may not be entered"],
)
def test_a_place_without_rights(folder, file, read):
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders let nobody else in
        runs = Runs(Path(place) / "runs.db")
        runs.add(records.record())
        runs.path.chmod(file)
        Path(place).chmod(folder)
        out, err = python(READ_ONLY, runs.path).communicate(timeout=60)
        Path(place).chmod(0o755)
    assert err == ""
    lines = out.splitlines()
    assert (
        lines[0] == "list gave 1" if read else lines[0].startswith("list raised NormlabError expected a runs store")
    )
    assert [line.split(" expected")[0] for line in lines[1:]] == [
        f"{n} raised NormlabError" for n in ("prepare", "add")
    ]
    assert all("; free the disk or mend its rights, or name another file with --store" in line for line in lines[1:])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_leaves_the_store_as_it_was(tmp_path):
    runs = Runs(tmp_path / "runs.db")
    runs.add(records.record())
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for index in range(20):
    try:
        Runs(sys.argv[1]).add(record(40, trial=f"{index:016x}"))
    except Exception as error:
        print(type(error).__name__, error)
        break
"""
    out, err = python(code, runs.path).communicate(timeout=60)
    assert err == ""
    assert out.startswith(f"NormlabError expected a runs store at {runs.path}, got ")
    assert "full" in out or "I/O" in out
    assert "free the disk" in out
    kept = runs.list()
    assert "0123456789abcdef" in {record.trial for _, record in kept}
    runs.add(records.record(40, trial="f" * 16))
    assert len(runs.list()) == len(kept) + 1


def test_two_processes_at_once_lose_nothing(tmp_path):
    """Fifty records each into one store, and meanwhile fifty stores that each would be the first to make."""
    code = """
from pathlib import Path
print(flush=True)
sys.stdin.read(1)
for index in range(50):
    added = record(trial=sys.argv[2] + f"{index:015x}")
    Runs(sys.argv[1]).add(added)
    Runs(Path(sys.argv[1]).with_name(f"{index}.db")).add(added)
"""
    path = tmp_path / "runs.db"
    writers = [python(code, path, name, stdin=subprocess.PIPE) for name in "ab"]
    for writer in writers:
        writer.stdout.readline()
    for writer in writers:
        writer.stdin.write("x")
        writer.stdin.flush()
    for writer in writers:
        _, err = writer.communicate(timeout=100)
        assert (writer.returncode, err) == (0, "")
    assert {record.trial for _, record in Runs(path).list()} == {f"{n}{i:015x}" for n in "ab" for i in range(50)}
    assert {len(Runs(tmp_path / f"{index}.db").list()) for index in range(50)} == {2}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_twenty_kills_while_adding_leave_whole_records(tmp_path):
    """Each child says what it has added; after its death that is there, and nothing but whole records is."""
    code = """
import os, random, signal, time
random.seed(0)
path, added = sys.argv[1], 0
for kill in range(20):
    reading, writing = os.pipe()
    child = os.fork()
    number = 0
    while not child:
        Runs(path).add(record(20, trial=f"{kill:08x}{number:08x}"))
        os.write(writing, b"x")
        number += 1
    os.close(writing)
    os.read(reading, 1)  # until it is at work, however busy the machine is
    time.sleep(random.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = 1 + len(os.read(reading, 100000))
    os.close(reading)
    found = [each for _, each in Runs(path).list() if each.trial.startswith(f"{kill:08x}")]
    assert said <= len(found) <= said + 1, (said, len(found))
    assert all(len(each.result.epochs) == 20 for each in found)
    added += len(found)
print(added == len(Runs(path).list()), added >= 20)
"""
    out, err = python(code, tmp_path / "runs.db").communicate(timeout=100)
    assert (out, err) == ("True True\n", "")
    with sqlite3.connect(tmp_path / "runs.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_a_store_is_merged_whole_or_not_at_all(tmp_path):
    mine, theirs = Runs(tmp_path / "mine.db"), Runs(tmp_path / "theirs.db")
    mine.add(records.record(trial="a" * 16))
    for trial in "abc":
        theirs.add(records.record(trial=trial * 16, seed=3))
    assert {record.trial[0] for record in mine.merge(theirs)} == {"b", "c"}
    assert mine.get("a").recipe.seed == 0, "one's own stays"
    assert mine.merge(theirs) == mine.merge(mine) == []
    with sqlite3.connect(theirs.path) as database:
        database.execute("UPDATE trials SET record = '{}' WHERE id LIKE 'c%'")
    database.close()
    other = Runs(tmp_path / "other.db")
    with pytest.raises(NormlabError, match=r"trial cccccccccccccccc in .*theirs.db"):
        other.merge(theirs)
    assert other.list() == []

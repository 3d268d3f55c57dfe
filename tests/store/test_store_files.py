import subprocess
import sys

import pytest

from normlab.store.files import write_atomically


def test_makes_its_folder_and_replaces_what_is_there(tmp_path):
    path = tmp_path / "deep" / "file"
    for content in (b"old", b"new and longer", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_name_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("x" * 255)
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - each system has its own
        write_atomically(tmp_path / "folder", b"content")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def limited(tmp_path, code, bytes_):
    """Python that may not write files longer than that, which is what a full disk looks like."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    return subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path\npath = Path({str(tmp_path / 'file')!r})\n{code}"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_)),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    code = "from normlab.store.files import write_atomically\nwrite_atomically(path, bytes(100_000))"
    done = limited(tmp_path, code, 50_000)
    assert "OSError: [Errno 27]" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_kill_at_any_instant_leaves_a_whole_file(tmp_path):
    """Twenty children, killed while they write one file of a megabyte over another: one letter it is made of."""
    code = """
import os, random, signal, sys, time
from pathlib import Path
from normlab.store.files import write_atomically
path, seen = Path(sys.argv[1]), set()
random.seed(0)
for _ in range(20):
    reading, writing = os.pipe()
    child = os.fork()
    while not child:
        for letter in b"abc":
            write_atomically(path, bytes([letter]) * 1_000_000)
            os.write(writing, b"x")
    os.close(writing)
    os.read(reading, 1)  # until it is at work, however busy the machine is
    time.sleep(random.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    content = path.read_bytes()
    assert len(content) == 1_000_000 and len(set(content)) == 1
    seen.add(content[0])
print(len(seen))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, int(done.stdout) > 1) == ("", True), "killed before it wrote anything"

import contextlib
import functools
import gzip
import http.server
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch

from normlab import data
from normlab.data import fashion_mnist
from normlab.data.sources import DebianPackage, Download, Folder, Say
from normlab.errors import NormlabError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="real signals and limits of POSIX")

CHILD = """
import json, sys
from pathlib import Path
from normlab.data import fashion_mnist
from normlab.data.idx import IdxFile
from normlab.data.sources import Folder
from normlab.errors import NormlabError
files = {name: IdxFile(known["name"], tuple(known["shape"]), known["sha256"])
         for name, known in json.loads(sys.argv[1]).items()}
try:
    loaded = fashion_mnist.load(print, [Folder(Path(sys.argv[2]))], files)
except NormlabError as error:
    sys.exit(f"NormlabError: {error}")
"""


def child(published, more: str = "", **options: object) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD + more, published.as_json(), str(published.folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def load(published, *sources, say: Say = lambda _: None) -> data.Dataset:
    loaded = fashion_mnist.load(say, sources or (Folder(published.folder),), published.files)
    for split in ("train", "test"):
        examples = getattr(loaded, split)
        assert torch.equal(examples.x[:, 0], published.tensors[f"{split}_images"])
        assert torch.equal(examples.y, published.tensors[f"{split}_labels"].long())
    return loaded


def cached_names() -> list[str]:
    return sorted(path.name for path in fashion_mnist.path().parent.iterdir())


class Refusing:
    """A source that must not be asked."""

    def fetch(self, names: Sequence[str], scratch: Path, say: Say) -> Path:
        pytest.fail("asked a source that was not needed")


# --- the chain


def test_the_cache_is_filled_once_and_then_serves_alone(home: Path, published) -> None:
    loaded = load(published)
    assert (loaded.shape, loaded.classes, loaded.validation) == ((1, 28, 28), 10, None)
    assert cached_names() == ["fashion-mnist.safetensors"]
    load(published, Refusing())


def test_sources_are_asked_in_order_until_one_has_what_was_published(home: Path, published, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(published.folder, wrong)
    (wrong / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    load(published, Folder(tmp_path / "nowhere"), Folder(wrong), Folder(published.folder), Refusing())


def test_no_source_at_all_says_what_was_tried_and_what_to_do(home: Path, published, tmp_path: Path) -> None:
    with pytest.raises(NormlabError) as caught:
        load(published, Folder(tmp_path / "a"), Folder(tmp_path))
    assert f"got {tmp_path}/a: no such folder; {tmp_path}: no train-images-idx3-ubyte.gz;" in str(caught.value)
    assert "apt install dataset-fashion-mnist, or set NORMLAB_FASHION_MNIST" in str(caught.value)
    assert cached_names() == []


def test_a_named_folder_comes_first_and_alone(home: Path, published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLAB_FASHION_MNIST", str(published.folder))
    load(published, Refusing())
    fashion_mnist.path().unlink()
    monkeypatch.setenv("NORMLAB_FASHION_MNIST", str(home))
    with pytest.raises(NormlabError, match=r"in the folder of NORMLAB_FASHION_MNIST, got .*home: no train-images"):
        load(published, Folder(published.folder))


def test_the_real_sources_and_hashes_are_whole() -> None:
    assert [len(known.sha256) for known in fashion_mnist.FILES.values()] == [64] * 4
    assert [type(source) for source in fashion_mnist.SOURCES] == [Folder, Download, Download, DebianPackage]


def test_the_real_images_where_they_are_cached(users_home: None) -> None:
    if fashion_mnist.status() == "missing":
        pytest.skip("Fashion-MNIST is not in the cache; normlab.data.load('fashion-mnist') fetches it")
    assert fashion_mnist.status() == "verified"
    loaded = data.load("fashion-mnist")
    assert loaded.test is not None
    assert (len(loaded.train), len(loaded.test), loaded.shape, loaded.classes) == (
        60000,
        10000,
        (1, 28, 28),
        10,
    )
    assert loaded.train.y.bincount().tolist() == [6000] * 10
    assert loaded.train.y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


# --- the network


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder. Below /half a file breaks off, below /wrong it is another, below /slow it is late."""

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").rpartition("/")
        self.path = f"/{name}"
        if kind == "half":
            content = Path(self.directory, name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        elif kind == "wrong":
            content = gzip.compress(b"another file")
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        elif kind == "slow":
            time.sleep(0.5)
        elif kind == "missing":
            self.send_error(404)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(published) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(published.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_a_download_says_one_line(home: Path, published, server: str) -> None:
    lines: list[str] = []
    load(published, Download(server, "31 MB"), say=lines.append)
    assert lines == [f"fashion-mnist: downloading 31 MB from {server.removeprefix('http://')}"]
    assert cached_names() == ["fashion-mnist.safetensors"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("half", "IncompleteRead"),
        ("wrong", "train-images-idx3-ubyte.gz has other content than published"),
        ("slow", "timed out"),
        ("missing", "404"),
    ],
)
def test_a_server_that_fails_gives_way_to_the_next(
    kind: str, reason: str, home: Path, published, server: str
) -> None:
    failing = Download(f"{server}/{kind}", "31 MB", timeout=(1.0, 0.2))
    with pytest.raises(NormlabError, match=reason):
        load(published, failing)
    assert cached_names() == []
    load(published, failing, Download(server, "31 MB"))


def test_no_server_at_all_gives_its_reason_without_layers(home: Path, published) -> None:
    with pytest.raises(NormlabError, match=r"got 127\.0\.0\.1:9: \[Errno \d+\] Connection refused; connect"):
        load(published, Download("http://127.0.0.1:9", "31 MB"))


# --- the Debian package


@pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no Debian tools here")
@pytest.mark.parametrize("lists", ["no lists", "lists"])
def test_the_package_is_unpacked_and_not_installed(
    lists: str, home: Path, published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real repository on this disk, and apt-get configured to know no other."""
    tree, repository, state = tmp_path / "tree", tmp_path / "repository", tmp_path / "state"
    for folder in (tree / "DEBIAN", repository, state / "lists", tmp_path / "archives"):
        folder.mkdir(parents=True)
    shutil.copytree(published.folder, tree / "usr/share/datasets/fashion-mnist")
    control = "Package: dataset-of-a-test\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(control)
    deb = repository / "dataset-of-a-test_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    digest = subprocess.run(["sha256sum", str(deb)], check=True, capture_output=True, text=True).stdout.split()[0]
    index = f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
    (repository / "Packages").write_text(index)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] copy:{repository} ./\n")
    settings = {
        "Dir::Etc::sourcelist": tmp_path / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": tmp_path / "archives",
        "APT::Sandbox::User": "root",
    }
    (tmp_path / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    if lists == "lists":
        subprocess.run(["apt-get", "-qq", "update"], check=True, capture_output=True)
    before = sorted(state.rglob("*"))
    lines: list[str] = []
    package = DebianPackage("dataset-of-a-test", "usr/share/datasets/fashion-mnist", "31 MB")
    load(published, package, say=lines.append)
    assert len(lines) == 1
    assert cached_names() == ["fashion-mnist.safetensors"]
    assert sorted(state.rglob("*")) == before, "the lists are the administrator's"
    fashion_mnist.path().unlink()
    with pytest.raises(NormlabError, match="Unable to locate package dataset-of-nothing"):
        load(published, DebianPackage("dataset-of-nothing", "", "31 MB"))


# --- the cache


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def retyped(path: Path) -> None:
    tensors = safetensors.torch.load(path.read_bytes())
    tensors["train_images"] = tensors["train_images"].view(torch.int8)
    path.write_bytes(safetensors.torch.save(tensors))


def reshaped(path: Path) -> None:
    tensors = safetensors.torch.load(path.read_bytes())
    tensors["train_images"] = tensors["train_images"].reshape(50, 784)
    path.write_bytes(safetensors.torch.save(tensors))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off in the header": lambda path: path.write_bytes(path.read_bytes()[:30]),
    "cut off by one byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a bit in the length of the header": lambda path: flip(path, 6),
    "a bit in the header": lambda path: flip(path, 10),
    "a bit in the middle": lambda path: flip(path, path.stat().st_size // 2),
    "the last bit": lambda path: flip(path, -1),
    "something else": lambda path: path.write_bytes(b"<html>" * 100),
    "other tensors": lambda path: path.write_bytes(safetensors.torch.save({"x": torch.zeros(2)})),
    "another type": retyped,
    "another shape": reshaped,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_said_and_made_again(damage: Callable[[Path], object], home: Path, published) -> None:
    load(published)
    damage(fashion_mnist.path())
    lines: list[str] = []
    load(published, say=lines.append)
    assert len(lines) == 1
    assert f"{fashion_mnist.path()} is damaged (" in lines[0]
    load(published, Refusing(), say=lines.append)
    assert len(lines) == 1


def test_a_damaged_cache_without_a_source_is_an_error_and_stays(home: Path, published, tmp_path: Path) -> None:
    load(published)
    flip(fashion_mnist.path(), -1)
    with pytest.raises(NormlabError, match="from one of its sources"):
        load(published, Folder(tmp_path / "nowhere"))
    assert cached_names() == ["fashion-mnist.safetensors"]


def test_the_status_says_which(home: Path, published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "FILES", published.files)
    assert data.describe("fashion-mnist").status == "missing"
    load(published)
    assert data.describe("fashion-mnist").status == "verified"
    flip(fashion_mnist.path(), -1)
    assert data.describe("fashion-mnist").status.startswith("damaged: ")


def test_a_cache_below_a_file_is_found_out_before_fetching(
    published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(NormlabError, match=r"got NotADirectoryError.*set NORMLAB_HOME"):
        load(published, Refusing())


def test_a_full_disk_is_said_and_leaves_nothing(home: Path, published) -> None:
    """The kernel refuses to let a file grow over 20 kB, as it does on a full disk: this also stops root."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = child(published, preexec_fn=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("NormlabError: expected to write 60 MB into the cache")
    assert "make room there" in errors
    assert cached_names() == []


def test_two_processes_at_once_both_succeed(home: Path, published) -> None:
    processes = [child(published) for _ in range(2)]
    assert [(process.communicate(timeout=60), process.returncode) for process in processes] == [(("", ""), 0)] * 2
    assert cached_names() == ["fashion-mnist.safetensors"]
    load(published, Refusing())


def test_a_kill_while_writing_leaves_no_half_file_and_its_rest_is_swept(home: Path, large) -> None:
    folder = fashion_mnist.path().parent

    def written() -> int:
        total = 0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
        return total

    for _ in range(5):  # a busy machine may be too late to interrupt anything
        process = child(large)
        while written() < 1_000_000 and process.poll() is None:
            time.sleep(0.0002)
        process.kill()
        process.communicate()
        if left := list(folder.glob(".fashion-mnist*")):
            break
        fashion_mnist.path().unlink()
    assert process.returncode == -signal.SIGKILL
    assert left
    assert not fashion_mnist.path().exists()
    lines: list[str] = []
    load(large, say=lines.append)
    assert lines == []
    assert set(folder.glob(".fashion-mnist*")) == set(left), "the rest of a writer that may live is not ours"
    for path in (*left[0].rglob("*"), left[0]):
        os.utime(path, (0, 0))
    load(large, Refusing())
    assert cached_names() == ["fashion-mnist.safetensors"]


SHARED = """
mapping, facts = False, {}
assert int(loaded.train.x.sum()) > 0
for line in open("/proc/self/smaps"):
    key, _, value = line.partition(":")
    if key.strip().isidentifier() and value.strip().endswith("kB"):
        facts[key] = facts.get(key, 0) + int(value.split()[0]) * mapping
    elif "-" in line.split()[0]:
        mapping = "fashion-mnist.safetensors" in line
print(facts["Rss"], facts["Anonymous"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_images_are_mapped_from_the_file_and_not_copied(home: Path, large) -> None:
    load(large)
    output, errors = (process := child(large, SHARED)).communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    resident, private = map(int, output.split())
    assert resident > 45_000, "the images lie in the mapping of the file, in kB"
    assert private == 0

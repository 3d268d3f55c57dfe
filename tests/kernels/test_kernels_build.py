"""Real compilers and real processes, on a source of two lines."""

import ctypes
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from normlab.errors import NormlabError
from normlab.kernels import build, ops, serving
from normlab.kernels.compiler import Compiler, Unusable

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("g++"), reason="needs g++")

ANNOUNCED = "normlab: compiling the CPU kernels for this machine, once (about 30 s)\n"

STABLE = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
using torch::stable::Tensor;
static Tensor same(Tensor x) { return torch::stable::empty_like(x); }
STABLE_TORCH_LIBRARY(normlab_tried, m) { m.def("same(Tensor x) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(normlab_tried, CPU, m) { m.impl("same", TORCH_BOX(&same)); }
"""

SERVE = """
import sys
from pathlib import Path
import torch
from normlab.kernels import ops, serving
serving.SOURCES = Path(sys.argv[1])
ops.load = torch.ops.load_library
"""


@pytest.fixture(autouse=True)
def shared_kernels():
    """None here: every test builds."""


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    (folder / "answer.cpp").write_text('#include "answer.h"\nextern "C" __attribute__((visibility("default")))')
    with (folder / "answer.cpp").open("a") as file:
        file.write(" int answer() { return ANSWER; }\n")
    (folder / "nan.cpp").write_text(
        'extern "C" __attribute__((visibility("default"))) int is_nan(float x) { return x != x; }\n'
    )
    return folder


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A compiler that notes how it is called; the file of its notes, one line a call."""
    return wrapped(tmp_path, monkeypatch, "")


def wrapped(tmp_path, monkeypatch, first):
    """$CXX: a script that notes its call, does `first`, and is g++."""
    notes, script = tmp_path / "calls", tmp_path / "cxx"
    notes.write_text("")
    script.write_text(
        '#!/bin/sh\ncase "$*" in *--version) exec g++ --version;; esac\n'
        f'echo "$TMPDIR" "$@" >> {notes}\n{first}\nexec g++ "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return notes


@pytest.fixture
def cache(own_home):
    return Path(os.environ["NORMLAB_HOME"]) / "cache" / "kernels"


@pytest.fixture
def loaded(sources, monkeypatch):
    """`serving` on the small sources; the bytes of what it loads, which it does not."""
    seen = []
    monkeypatch.setattr(serving, "SOURCES", sources)
    monkeypatch.setattr(ops, "load", lambda path: seen.append(Path(path).read_bytes()))
    monkeypatch.setattr(serving, "path", functools.cache(serving.path.__wrapped__))
    return seen


def made(sources):
    planned = build.plan(sources)
    planned.make()
    return planned


def test_a_library_of_several_sources(sources, calls, cache, capfd):
    library = made(sources).library
    assert capfd.readouterr() == ("", ANNOUNCED)
    found = ctypes.CDLL(str(library))
    assert found.answer() == 42
    found.is_nan.argtypes = [ctypes.c_float]
    assert found.is_nan(float("nan")), "no flag may do away with NaN"
    assert not found.is_nan(1.0)
    assert [line.split().count("-c") for line in calls.read_text().splitlines()] == [1, 1, 0]
    assert all(line.startswith(f"{cache}/.build-") for line in calls.read_text().splitlines()), "what is swept"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in cache.iterdir()} == {".so", ".sha256", ""}, "the lock, and no scratch"


def test_an_operator_of_torchs_stable_abi_is_loaded(sources):
    (sources / "operator.cpp").write_text(STABLE)
    code = SERVE + "print(serving.path(), torch.ops.normlab_tried.same(torch.ones(3)).shape)"
    for announced in (ANNOUNCED, ""):
        done = subprocess.run([sys.executable, "-c", code, sources], capture_output=True, text=True, timeout=120)
        assert (done.stdout, done.stderr) == ("native, compiled for this machine torch.Size([3])\n", announced)


def test_eight_processes_at_once_compile_once(sources, tmp_path, monkeypatch):
    calls = wrapped(tmp_path, monkeypatch, "sleep 0.5")
    code = SERVE + (
        "import os\n"
        "for _ in range(8):\n"
        "    if not os.fork():\n"
        "        os.write(1, f'{serving.path()}\\n'.encode())\n"
        "        os._exit(0)\n"
        "assert all(os.wait()[1] == 0 for _ in range(8))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, sources], capture_output=True, text=True, timeout=120)
    assert done.stderr == ANNOUNCED
    assert done.stdout == "native, compiled for this machine\n" * 8
    assert len(calls.read_text().splitlines()) == 3, "two sources and the link"


def test_a_killed_builder_is_in_nobodys_way(sources, cache, tmp_path, monkeypatch):
    stuck = tmp_path / "stuck"
    wrapped(tmp_path, monkeypatch, f"[ -e {stuck} ] || {{ echo $$ > {stuck}; exec sleep 100; }}")
    builder = subprocess.Popen(
        [sys.executable, "-c", SERVE + "serving.path()", sources], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(1200):
            if stuck.exists() and stuck.read_text():
                break
            time.sleep(0.05)
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        (left,) = cache.glob(".build-*")
        assert not build.plan(sources).ready()
        before = time.monotonic()
        assert made(sources).ready()
        assert time.monotonic() - before < 30, "it does not wait for the orphan"
        assert not left.exists()
    finally:
        os.killpg(builder.pid, signal.SIGKILL)


def flip(planned):
    content = bytearray(planned.library.read_bytes())
    content[len(content) // 2] ^= 1
    planned.library.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda planned: planned.library.write_bytes(planned.library.read_bytes()[:1000]),
        lambda planned: planned.library.unlink(),
        lambda planned: planned.library.with_suffix(".sha256").unlink(),
        lambda planned: planned.library.with_suffix(".sha256").write_bytes(b"\xff"),
    ],
    ids=["flipped", "truncated", "missing", "unrecorded", "misrecorded"],
)
def test_a_damaged_library_is_built_again_and_never_loaded(sources, loaded, calls, harm):
    planned = made(sources)
    good = planned.library.read_bytes()
    harm(planned)
    assert serving.path().name == "native"
    assert [hashlib.sha256(each).hexdigest() for each in loaded] == [hashlib.sha256(good).hexdigest()]
    assert len(calls.read_text().splitlines()) == 6


def test_what_decides_the_library(sources, calls, monkeypatch):
    names = [made(sources).library]
    (sources / "answer.h").write_text("#define ANSWER 43\n")
    names.append(made(sources).library)
    assert ctypes.CDLL(str(names[-1])).answer() == 43, "a header counts"
    monkeypatch.setenv("NORMLAB_KERNELS_FLAGS", "-march=x86-64 -DNONE")
    names.append(made(sources).library)
    assert all(
        "-march=native -" in line and "-march=x86-64 -DNONE" in line for line in calls.read_text().splitlines()[6:]
    )
    monkeypatch.setattr(build, "processor", lambda: ("another",))
    names.append(build.plan(sources).library)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    names.append(build.plan(sources).library)
    monkeypatch.setenv("CXX", "g++ -m64")
    names.append(build.plan(sources).library)
    assert build.plan(sources).library == names[-1]
    monkeypatch.setattr(build, "compiler", lambda: Compiler(("g++", "-m64"), "another"))
    names.append(build.plan(sources).library)
    assert len(set(names)) == len(names)


def test_what_does_not_compile(sources, loaded, calls, cache, capfd):
    (sources / "broken.cpp").write_text('#warning "an error of no weight"\nint f() { return nowhere; }\n')
    served = serving.path()
    assert served.name == "plain"
    assert served.why.startswith("the compiler says ")
    assert served.why.endswith("broken.cpp:2:18: error: 'nowhere' was not declared in this scope")
    (log,) = cache.glob("*.log")
    assert str(log) in served.do
    assert "an error of no weight" in log.read_text()
    assert "exit code 1" in log.read_text()
    assert capfd.readouterr().err == f"{ANNOUNCED}normlab: no native kernels, {served}; {served.do}\n"
    assert serving.looked_up() == served
    assert serving.path() is served
    serving.path.cache_clear()
    assert serving.path() == served, "nor does the next process try for a while"
    assert len(calls.read_text().splitlines()) == 3
    os.utime(log, (0, 0))
    assert serving.looked_up().name == "native"
    assert loaded == []


def test_a_compiler_that_is_killed_is_asked_again(loaded, tmp_path, monkeypatch):
    wrapped(tmp_path, monkeypatch, f"[ -e {tmp_path}/again ] || {{ touch {tmp_path}/again; kill -TERM $$; }}")
    assert serving.path().why == "the compiler was killed"
    serving.path.cache_clear()
    assert serving.path().name == "native"


def test_another_folder(sources, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMLAB_KERNELS_CACHE", str(tmp_path / "elsewhere"))
    assert made(sources).library.parent == tmp_path / "elsewhere"
    assert not cache.exists()


def test_without_a_compiler(loaded, cache, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert serving.looked_up() == serving.path() == serving.path()
    assert str(serving.path()) == "plain torch: no C++ compiler"
    assert capfd.readouterr() == ("", "normlab: no native kernels, plain torch: no C++ compiler; install g++\n")
    assert not cache.exists()


def test_a_compiler_that_only_says_how_to_get_one(sources, tmp_path, monkeypatch):
    (tmp_path / "c++").write_text("#!/bin/sh\necho install the tools\nexit 1\n")
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unusable, match=r"no C\+\+ compiler"):
        build.plan(sources)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to(sources, loaded, cache, mode):
    made(sources)
    cache.chmod(mode)
    assert serving.path().why == serving.looked_up().why == f"others may write to {cache}"
    assert loaded == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_somebody_elses_folder(sources, loaded, cache):
    made(sources)
    os.chown(cache, 12345, -1)
    assert serving.path().why == f"{cache} belongs to somebody else"
    assert loaded == []


def test_a_cache_that_cannot_be_written(loaded, cache):
    cache.parent.mkdir(parents=True)
    cache.parent.chmod(0o500)
    try:
        if os.access(cache.parent, os.W_OK):
            pytest.skip("root writes everywhere")
        assert serving.path().why == serving.looked_up().why == f"{cache.parent} may not be written to"
    finally:
        cache.parent.chmod(0o700)


def test_a_cache_that_cannot_be_made(loaded, cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file")
    assert serving.path().why == serving.looked_up().why == f"{cache.parent} may not be written to"


def test_a_full_disk(loaded, monkeypatch, capfd):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.tempfile, "TemporaryDirectory", full)
    assert serving.path().why == "OSError: [Errno 28] No space left on device"
    assert capfd.readouterr().err.count("\n") == 1


def test_what_does_not_load(loaded, monkeypatch):
    def cannot(path):
        raise OSError(f"Could not load this library: {path}") from OSError("undefined symbol: f")

    monkeypatch.setattr(ops, "load", cannot)
    assert serving.path().why == "the library does not load (OSError: undefined symbol: f)"


def test_an_old_torch(loaded, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    assert serving.path().why == "torch 2.9.1 has no headers of the stable ABI"


def test_windows(loaded, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert serving.path().why == "there are none for Windows"


def test_a_folder_without_sources(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "SOURCES", tmp_path)
    assert serving.path().why == f"there are no sources in {tmp_path}"


def test_native_or_an_error(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMLAB_KERNELS", "native")
    assert serving.path().name == "native"
    assert len(loaded) == 1
    serving.path.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for each in (serving.path, serving.looked_up):
        with pytest.raises(NormlabError) as caught:
            each()
        assert (
            str(caught.value) == "expected native kernels, as NORMLAB_KERNELS asks, got no C++ compiler; install g++"
        )


def test_the_reference_builds_nothing(loaded, calls, cache, monkeypatch, capfd):
    monkeypatch.setenv("NORMLAB_KERNELS", "reference")
    assert str(serving.path()) == str(serving.looked_up()) == "reference, as NORMLAB_KERNELS asks"
    assert capfd.readouterr() == ("", "")
    assert not cache.exists()
    assert loaded == []
    assert calls.read_text() == ""


def test_another_word(loaded, monkeypatch):
    monkeypatch.setenv("NORMLAB_KERNELS", "fast")
    for each in (serving.path, serving.looked_up):
        with pytest.raises(
            NormlabError, match="expected native or reference in NORMLAB_KERNELS, got 'fast'; or unset"
        ):
            each()


def test_looking_up_makes_nothing(sources, loaded, cache):
    looked = serving.looked_up()
    assert looked.name == "native"
    assert looked.why.startswith("to be compiled at first use by ")
    assert not cache.exists()
    made(sources)
    assert serving.looked_up().why == "compiled for this machine"
    assert loaded == []

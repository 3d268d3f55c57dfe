"""The native kernels where they are expected, and on machines other than this one."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from normlab.kernels import compiler, serving

CAN_COMPILE = sys.platform != "win32" and any(map(shutil.which, ("c++", "g++", "clang++")))
ARM = shutil.which("aarch64-linux-gnu-g++")
HERE = Path(__file__).parent


def python(*arguments, **environment):
    words = [sys.executable, *map(str, arguments)]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(not CAN_COMPILE, reason="there is no C++ compiler")
def test_they_serve_a_fresh_process():
    """What else would run the suite would run all of it on the reference, and pass."""
    done = python("-c", "from normlab.kernels import serving; print(serving.path().name)", NORMLAB_KERNELS="")
    assert (done.returncode, done.stdout) == (0, "native\n"), done.stderr


def has(instructions):
    with Path("/proc/cpuinfo").open() as lines:
        return instructions <= {word for line in lines if line.startswith("flags") for word in line.split()}


@pytest.mark.slow
@pytest.mark.skipif(not CAN_COMPILE or platform.machine() != "x86_64", reason="needs a compiler for x86-64")
@pytest.mark.parametrize(
    ("machine", "width", "needs"), [("haswell", 8, {"avx2", "fma"}), ("x86-64-v2", 4, {"sse4_2"})]
)
def test_narrower_vectors(machine, width, needs):
    if not has(needs):
        pytest.skip(f"this processor lacks {needs}")
    narrow = {
        "NORMLAB_KERNELS_FLAGS": f"-O1 -march={machine}",
        "NORMLAB_TEST_EXAMPLES": "40",
        "NORMLAB_TEST_WIDTH": str(width),
    }
    chosen = [
        "-k",
        "native and (a_stage or any_stage or every_tail or only_fill_up or statistics) or number_of_threads",
    ]
    done = python("-m", "pytest", "-q", "-ra", HERE / "test_kernels_stage.py", *chosen, **narrow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.skipif(not ARM, reason="needs aarch64-linux-gnu-g++: apt install g++-aarch64-linux-gnu")
@pytest.mark.parametrize("source", sorted(serving.SOURCES.glob("*.cpp")), ids=lambda path: path.name)
def test_the_width_of_neon_compiles(source):
    words = [ARM, "-std=c++20", "-O1", "-fsyntax-only", "-Wall", "-isystem", str(compiler.include()), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")

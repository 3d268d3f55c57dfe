"""The C++ compiler of this machine: which it is, what it is told, and what it compiles for."""

import contextlib
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

_ARM = platform.machine() in ("arm64", "aarch64")
_MAC = sys.platform == "darwin"


class Unusable(Exception):  # noqa: N818 - not a mistake of the reader's: plain torch runs, and a line says why
    """Why there can be no native kernels here, and what its reader can do about it."""

    def __init__(self, why: str, do: str = "") -> None:
        super().__init__(why)
        self.do = do


@dataclasses.dataclass(frozen=True)
class Compiler:
    """The words that call it, and what it says of itself."""

    command: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        return " at ".join(filter(None, (self.version.partition("\n")[0], self.command[0])))


def compiler() -> Compiler:
    """$CXX, else c++, g++ or clang++: the first that is there and answers. Raises Unusable if none does."""
    for named in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if named.strip() and (found := shutil.which(named.split()[0])):
            command = (found, *named.split()[1:])
            with contextlib.suppress(OSError):
                answer = call([*command, "--version"])
                if answer.returncode == 0:  # macOS has a c++ that only says how to get one
                    return Compiler(command, answer.stdout.strip())
    raise Unusable("no C++ compiler", "xcode-select --install" if _MAC else "install g++")


def flags() -> tuple[str, ...]:
    """For this machine, with those that NORMLAB_KERNELS_FLAGS adds. Not -ffast-math: a NaN stays one."""
    machine = "-mcpu=native" if _ARM else "-march=native"
    ours = ("-std=c++20", "-O3", machine, "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fvisibility=hidden")
    return (*ours, *os.environ.get("NORMLAB_KERNELS_FLAGS", "").split())


def include() -> Path:
    """The folder of torch's headers. Raises Unusable if the stable ABI is not among them."""
    folder = Path(torch.__file__).parent / "include"
    old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10)
    if old or not (folder / "torch" / "csrc" / "stable" / "library.h").is_file():
        raise Unusable(f"torch {torch.__version__} has no headers of the stable ABI", "install torch >= 2.10")
    return folder


def linking() -> tuple[str, ...]:
    """What makes a library of objects that use torch, which is loaded before it."""
    lib = Path(torch.__file__).parent / "lib"
    kind = ("-dynamiclib", "-undefined", "dynamic_lookup", f"-Wl,-rpath,{lib}") if _MAC else ("-shared",)
    return (*kind, f"-L{lib}", "-ltorch_cpu", "-lc10")


def processor() -> tuple[str, ...]:
    """What `native` stands for: the system, the architecture, and the instructions that this processor has."""
    instructions = platform.processor()
    with contextlib.suppress(OSError):
        if _MAC:
            instructions = call(["sysctl", "hw.optional", "machdep.cpu.brand_string"]).stdout
        else:
            with Path("/proc/cpuinfo").open(errors="replace") as lines:  # as far as the first core's
                instructions = next((each for each in lines if each.startswith(("flags", "Features"))), instructions)
    return platform.system(), platform.machine(), instructions


def call(command: list[str], temporary: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Its two streams in one, in English; its temporary files in the folder given."""
    return subprocess.run(
        command,
        env=os.environ | {"LC_ALL": "C"} | ({"TMPDIR": str(temporary)} if temporary else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )

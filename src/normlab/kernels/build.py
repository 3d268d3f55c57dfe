"""Compiles C++ sources for the machine at hand, once, into a cache that nobody but its owner may write.

A library is named by a hash of all that it is made of, and its own SHA-256 lies beside it. Whoever holds the folder's
lock builds, the others wait; the system takes the lock from a process that is killed. NORMLAB_KERNELS_CACHE names
another folder than the one in NORMLAB_HOME or the platform's: a local disk's, or one that several homes share.
"""

import dataclasses
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from normlab.kernels.compiler import Compiler, Unusable, call, compiler, flags, include, linking, processor
from normlab.store.home import cache

_SCRATCH = ".build-"
_SAYS_WHY = re.compile(r"error: |undefined reference|\bld: ")
_REMEMBERED = 600.0
"""Seconds for which a build that failed is not tried again: every worker of a study would."""


@dataclasses.dataclass(frozen=True)
class Build:
    """Sources, and all that decides what becomes of them."""

    sources: tuple[Path, ...]
    compiler: Compiler
    flags: tuple[str, ...]
    library: Path

    def ready(self) -> bool:
        """Whether the library is there, byte for byte as it was built."""
        try:
            return _sha256(self.library).encode() == self._recorded.read_bytes()
        except OSError:
            return False

    def check(self) -> None:
        """Raises Unusable where `make` would, as far as that can be told without compiling."""
        folder = self.library.parent
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise Unusable(f"{there} may not be written to", "mend its rights, or set NORMLAB_HOME to another folder")
        if self._log.exists() and time.time() - self._log.stat().st_mtime < _REMEMBERED:
            raise self._failure()

    def make(self) -> None:
        """Compiles, unless another process does so meanwhile; whole or not at all. Raises Unusable and OSError."""
        import fcntl  # not on Windows, where `plan` has raised

        self.check()
        folder = self.library.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(folder)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.ready():
                return
            self.check()
            for left in folder.glob(f"{_SCRATCH}*"):  # its builder was killed: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True) as scratch:
                self._compile(Path(scratch))

    def _compile(self, scratch: Path) -> None:
        print("normlab: compiling the CPU kernels for this machine, once (about 30 s)", file=sys.stderr, flush=True)
        new, recorded, log = (scratch / path.name for path in (self.library, self._recorded, self._log))
        start = [*self.compiler.command, *self.flags]
        objects = [str(scratch / f"{source.stem}.o") for source in self.sources]
        calls = [[*start, "-c", str(each), "-o", to] for each, to in zip(self.sources, objects, strict=True)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = list(pool.map(lambda words: call(words, scratch), calls))
        if not any(each.returncode for each in done):
            done.append(call([*start, *objects, *linking(), "-o", str(new)], scratch))
        if any(each.returncode < 0 for each in done):  # Ctrl-C reaches it too: that says nothing of the sources
            raise Unusable("the compiler was killed", "the next run tries again")
        if failed := [each for each in done if each.returncode]:
            said = (f"$ {shlex.join(each.args)}\n{each.stdout}\nexit code {each.returncode}\n" for each in failed)
            log.write_text("".join(said))
            log.replace(self._log)
            raise self._failure()
        recorded.write_text(_sha256(new))
        new.replace(self.library)
        recorded.replace(self._recorded)
        self._log.unlink(missing_ok=True)

    def _failure(self) -> Unusable:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line and line[0] != "$"]
        first = next((line for line in lines if _SAYS_WHY.search(line)), lines[-1])
        return Unusable(f"the compiler says {first.strip()}", f"see {self._log}, and remove it to try again")

    @property
    def _recorded(self) -> Path:
        return self.library.with_suffix(".sha256")

    @property
    def _log(self) -> Path:
        return self.library.with_suffix(".log")


def plan(folder: Path) -> Build:
    """How the *.cpp and *.h of a folder become a library here; writes nothing. Raises Unusable and OSError."""
    if sys.platform == "win32":
        raise Unusable("there are none for Windows", "use WSL")
    sources = tuple(sorted(folder.glob("*.cpp")))
    if not sources:
        raise Unusable(f"there are no sources in {folder}")
    headers, used = include(), compiler()
    identity = {
        "sources": {path.name: _sha256(path) for path in (*sources, *folder.glob("*.h"))},
        "compiler": [*used.command[1:], used.version],
        "flags": flags(),
        "processor": processor(),
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    named = os.environ.get("NORMLAB_KERNELS_CACHE")
    kept = Path(named).expanduser() if named else cache() / "kernels"
    if kept.exists():
        _refuse_foreign(kept)
    return Build(sources, used, (*flags(), "-isystem", str(headers)), kept / f"{key[:32]}.so")


def _refuse_foreign(folder: Path) -> None:
    """What others can write, or could have written, is not loaded."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise Unusable(f"{folder} belongs to somebody else", "set NORMLAB_HOME to a folder of your own")
    if found.st_mode & 0o022:
        raise Unusable(f"others may write to {folder}", "remove it; the next run makes it again")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

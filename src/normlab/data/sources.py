"""Where published files come from: a folder, a web server, a Debian package. None of them is trusted."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from normlab.data.idx import Unusable

Say = Callable[[str], None]
"""Is told, in one line, what takes time or has gone wrong."""


class Source(Protocol):
    """Somewhere that may have the files."""

    def fetch(self, names: Sequence[str], scratch: Path, say: Say) -> Path:
        """The folder that holds the files `names`, gzipped or not; may fill the empty folder `scratch`.

        Raises Unusable where it has none; what it has, the caller verifies.
        """


@dataclass(frozen=True)
class Folder:
    """A folder on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def fetch(self, names: Sequence[str], scratch: Path, say: Say) -> Path:
        """The folder itself."""
        if not self.path.is_dir():
            raise Unusable("no such folder")
        return self.path


@dataclass(frozen=True)
class Download:
    """A web server with the gzipped files below `url`; `timeout` in seconds to connect and between bytes."""

    url: str
    size: str
    timeout: tuple[float, float] = (5.0, 20.0)

    def __str__(self) -> str:
        return urlsplit(self.url).netloc

    def fetch(self, names: Sequence[str], scratch: Path, say: Say) -> Path:
        """Downloads the files."""
        import pooch

        # Its downloader alone: pooch.retrieve would log a hash of the gzipped bytes, and theirs differ.
        download = pooch.HTTPDownloader(timeout=self.timeout)
        say(f"downloading {self.size} from {self}")
        try:
            for name in names:
                download(f"{self.url}/{name}.gz", str(scratch / f"{name}.gz"), None)
        except OSError as error:  # of which those of requests are a kind
            raise Unusable(_cause(error)) from error
        return scratch


def _cause(error: BaseException) -> str:
    """What lies at the bottom of a chain of exceptions of requests and urllib3, whose own messages nest."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package with the files below `folder`; downloaded and unpacked, not installed: no root."""

    package: str
    folder: str
    size: str

    def __str__(self) -> str:
        return f"Debian package {self.package}"

    def fetch(self, names: Sequence[str], scratch: Path, say: Say) -> Path:
        """Downloads the package with apt-get, which verifies its signature, and unpacks it."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise Unusable("no apt-get and dpkg-deb on this machine")
        say(f"downloading {self.size} as the {self} (it is not installed, and no root is needed)")
        try:
            self._apt(scratch, [], "download", self.package)
        except Unusable:
            # The package lists are missing or old, and root's to renew: these are our own.
            ours = [f"Dir::State::lists={scratch / 'lists'}", f"Dir::Cache={scratch / 'cache'}"]
            ours.append("Acquire::Languages=none")
            (scratch / "lists").mkdir()
            (scratch / "cache").mkdir()
            self._apt(scratch, ours, "update")
            self._apt(scratch, ours, "download", self.package)
        unpacked = scratch / "unpacked"
        for file in scratch.glob("*.deb"):
            _run(scratch, "dpkg-deb", "-x", str(file), str(unpacked))
        return unpacked / self.folder

    def _apt(self, scratch: Path, options: Sequence[str], *command: str) -> None:
        patience = ["Acquire::Retries=0", "Acquire::http::Timeout=10", "Acquire::https::Timeout=10"]
        # As root, apt-get would turn into a user who may not enter the scratch folder.
        given = [word for option in (*patience, "APT::Sandbox::User=", *options) for word in ("-o", option)]
        _run(scratch, "apt-get", "-qq", *given, *command)


def _run(folder: Path, *command: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unusable(f"{command[0]}: {said[-1]}")

"""Files that are whole or not there."""

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a kill at any instant leaves the old one, or none, or the whole new one.

    Raises OSError as the system does, on a full disk for one; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the file's own name, which may be as long as names can be.
    new = path.parent / f".normlab-{secrets.token_hex(8)}"
    try:
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise

"""The idx format of MNIST and its kin: big-endian header, then bytes. Only unsigned bytes are read.

Source: Y. LeCun, The MNIST database, "File formats for the MNIST database".
"""

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

_UNSIGNED_BYTE = 0x08


class Unusable(Exception):  # noqa: N818 - not a mistake of the reader's, who sees it as a reason in a NormlabError
    """A source, a file or a cache that cannot serve, and why."""


@dataclass(frozen=True)
class IdxFile:
    """A file that is known in advance: its name without `.gz`, shape, and SHA-256 when decompressed."""

    name: str
    shape: tuple[int, ...]
    sha256: str


def header(shape: tuple[int, ...]) -> bytes:
    """What stands before the bytes of an array of this shape."""
    return struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)


def sha256(values: Tensor) -> str:
    """The SHA-256 of the idx file that would hold this contiguous uint8 tensor: of its shape, too."""
    digest = hashlib.sha256(header(tuple(values.shape)))
    digest.update(values.numpy().data)
    return digest.hexdigest()


def decode(content: bytes) -> Tensor:
    """The uint8 tensor in the bytes of an idx file; raises Unusable where they are none."""
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
        raise Unusable(f"no idx file of unsigned bytes: it begins with {content[:4].hex(' ') or 'nothing'}")
    begin = 4 + 4 * content[3]
    if len(content) < begin:
        raise Unusable(f"an idx header cut off after {len(content)} bytes")
    shape = struct.unpack(f">{content[3]}I", content[4:begin])
    if len(content) - begin != prod(shape):
        raise Unusable(f"an idx header of shape {shape} before {len(content) - begin} bytes")
    # A bytearray, as torch warns of memory that it may not write into.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[begin:].reshape(shape)


def read(folder: Path, known: IdxFile) -> Tensor:
    """The uint8 tensor in a folder's copy of a known file, gzipped or not; raises Unusable on any other."""
    size = len(header(known.shape)) + prod(known.shape)
    for path in (folder / f"{known.name}.gz", folder / known.name):
        if path.is_file():
            break
    else:
        raise Unusable(f"no {known.name}.gz")
    try:
        with path.open("rb") as file:
            # By content, not by name: some clients unpack what they download and leave it its name.
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            # A byte more than it should have: reads the checksum at its end, bounds what a wrong one takes.
            content = (gzip.GzipFile(fileobj=file) if zipped else file).read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Unusable(f"{path.name}: {error}") from error
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise Unusable(f"{path.name} has other content than published")
    return decode(content)

import gzip
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from normlab.data import idx
from normlab.data.idx import IdxFile, Unusable

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)


def encoded(values: torch.Tensor) -> bytes:
    return idx.header(tuple(values.shape)) + values.numpy().tobytes()


def test_the_header_is_that_of_the_published_files() -> None:
    assert idx.header((60000, 28, 28)).hex() == "00000803" + "0000ea60" + "0000001c" + "0000001c"


@given(shapes)
def test_what_is_encoded_is_decoded(shape: tuple[int, ...]) -> None:
    values = torch.arange(prod(shape)).to(torch.uint8).reshape(shape)
    assert torch.equal(idx.decode(encoded(values)), values)


@given(shapes, st.data())
def test_a_file_cut_off_anywhere_or_continued_is_refused(shape: tuple[int, ...], data: st.DataObject) -> None:
    content = encoded(torch.ones(shape, dtype=torch.uint8))
    with pytest.raises(Unusable):
        idx.decode(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(Unusable):
        idx.decode(content + b"\0")


@given(st.binary(max_size=40))
def test_other_bytes_are_refused_or_are_an_array_of_just_them(content: bytes) -> None:
    try:
        values = idx.decode(content)
    except Unusable:
        return
    assert encoded(values) == content


VALUES = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
KNOWN = IdxFile("images-idx3-ubyte", (2, 3, 4), idx.sha256(VALUES))


@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_file_is_known_by_what_is_in_it(level: int, tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(encoded(VALUES), level))
    assert torch.equal(idx.read(tmp_path, KNOWN), VALUES)


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_a_file_may_be_unpacked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(encoded(VALUES))
    assert torch.equal(idx.read(tmp_path, KNOWN), VALUES)


ZIPPED = gzip.compress(encoded(VALUES))


OTHERS = {
    "none": (None, r"no images-idx3-ubyte\.gz"),
    "empty": (b"", "other content"),
    "cut off": (ZIPPED[:20], "ended before"),
    "damaged": (ZIPPED[:-8] + bytes(8), "CRC"),
    "too long": (gzip.compress(encoded(VALUES) + b"\0"), "other content"),
    "other numbers": (gzip.compress(encoded(VALUES + 1)), "other content"),
    "a page": (b"<html>Not found</html>", "other content"),
}


# Named: gzip writes the time into what it compresses, and two processes would see different tests.
@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
def test_another_file_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(Unusable, match=message):
        idx.read(tmp_path, KNOWN)

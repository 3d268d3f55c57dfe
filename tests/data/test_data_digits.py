import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from normlab import data
from normlab.data import digits
from normlab.errors import NormlabError


def test_the_digits_are_those_of_scikit_learn() -> None:
    theirs, loaded = load_digits(), data.load("digits-8x8")
    assert loaded.test is not None
    assert (len(loaded.train), len(loaded.test), loaded.shape, loaded.classes) == (1437, 360, (1, 8, 8), 10)
    x = torch.cat([loaded.train.x, loaded.test.x])
    assert x.dtype == torch.uint8
    assert torch.equal(x[:, 0], torch.from_numpy(theirs.images).to(torch.uint8) * 15)
    assert torch.equal(torch.cat([loaded.train.y, loaded.test.y]), torch.from_numpy(theirs.target))


def test_the_large_digits_are_the_small_ones_each_pixel_nine_times_in_a_border() -> None:
    small, large = data.load("digits-8x8").train.x, data.load("digits").train.x
    assert large.shape == (1437, 1, 28, 28)
    for dy in range(3):
        for dx in range(3):
            assert torch.equal(large[:, :, 2 + dy : 26 : 3, 2 + dx : 26 : 3], small)
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[2:26, 2:26] = True
    assert not large[:, :, ~inside].any()


def test_every_class_is_in_both_splits() -> None:
    loaded = data.load("digits")
    assert loaded.test is not None
    for split in (loaded.train, loaded.test):
        assert split.y.bincount().min() >= 30


def test_scikit_learn_is_not_imported_for_them() -> None:
    script = "import sys; from normlab import data; data.load('digits'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("content", [None, b"not gzipped"])
def test_a_missing_or_damaged_file_is_said(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.csv.gz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(digits, "path", lambda: path)
    with pytest.raises(NormlabError, match="--force-reinstall scikit-learn"):
        digits.load_28x28()
    assert digits.status().startswith("damaged")

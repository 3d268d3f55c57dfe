"""The small data: shapes, ranges, classes, and the same again."""

import pytest
import torch

from normlab import data
from normlab.data import small

SHAPES = {
    "table": ((455, 114), (30,), 2),
    "sequences": ((1437, 360), (8, 8), 10),
    "volumes": ((1437, 360), (1, 4, 8, 8), 10),
    "domains": ((1437, 360), (2, 8, 8), 10),
}


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_data_that_a_recipe_can_name(name: str) -> None:
    loaded = data.load(f"normlab.data.small:{name}")
    counts, shape, classes = SHAPES[name]
    assert loaded.test is not None
    assert (len(loaded.train), len(loaded.test)) == counts
    assert (loaded.shape, loaded.classes) == (shape, classes)
    again = getattr(small, name)()
    assert torch.equal(loaded.train.x, again["train"][0])
    assert torch.equal(loaded.test.y, again["test"][1])


def test_the_table_is_standardized_by_what_trains() -> None:
    splits = small.table()
    x = splits["train"][0]
    torch.testing.assert_close(x.mean(0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(30))
    assert splits["test"][0].mean(0).abs().max() > 0.01


def test_a_row_of_a_digit_is_a_step_of_its_sequence() -> None:
    digits = data.load("digits-8x8").train.x
    assert torch.equal(small.sequences()["train"][0][7, :, 2], digits[7, 0, 2])


def test_a_volume_holds_its_digit_in_two_slices_that_lie_together() -> None:
    digits, (x, _) = data.load("digits-8x8").train.x, small.volumes()["train"]
    bright = (x[:, 0] - digits / 240).abs().amax((2, 3)) <= 0.2
    assert (bright.sum(1) == 2).all()
    front = bright.int().argmax(1)
    assert bright[torch.arange(len(x)), front + 1].all()
    assert front.unique().tolist() == [*range(3)]


def test_every_second_digit_is_inverted() -> None:
    digits, (x, _) = data.load("digits-8x8").train.x, small.domains()["train"]
    assert x[:4, 1].amax((1, 2)).tolist() == x[:4, 1].amin((1, 2)).tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(x[::2, 0], digits[::2, 0] / 240)
    torch.testing.assert_close(x[1::2, 0], 1 - digits[1::2, 0] / 240)

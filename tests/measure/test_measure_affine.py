"""affine: gamma and beta as they are."""

import torch
from looks import look
from torch import nn

from normlab.measure import affine


def test_the_first_channels_and_the_mean() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(1), nn.BatchNorm2d(2, affine=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0, 4.0, 9.0]))
        model[0].bias.copy_(torch.tensor([-1.0, 0.0, 0.5, 2.5]))
    assert affine(1, channels=2)(look(model)) == {
        "0.gamma.mean": 4.0, "0.gamma[0]": 1.0, "0.gamma[1]": 2.0,
        "0.beta.mean": 0.5, "0.beta[0]": -1.0, "0.beta[1]": 0.0,
        "1.gamma.mean": 1.0, "1.gamma[0]": 1.0, "1.beta.mean": 0.0, "1.beta[0]": 0.0,
    }  # fmt: skip


def test_three_channels_are_the_default() -> None:
    assert [name for name in affine(1)(look(nn.Sequential(nn.BatchNorm2d(9)))) if "gamma" in name] == [
        "0.gamma.mean", "0.gamma[0]", "0.gamma[1]", "0.gamma[2]",
    ]  # fmt: skip

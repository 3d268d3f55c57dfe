"""Where the batch is known to be of the training data: statistics that are off by a factor that noise would allow."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab import check, data, models
from normlab.surgery.find import batch_norms

Digits = tuple[Tensor, Tensor]
"""Images and classes."""


@pytest.fixture(scope="module")
def digits() -> Digits:
    split = data.load("digits-8x8").train
    return next(split.batches(len(split)))


@pytest.fixture
def trained(digits: Digits) -> nn.Module:
    """An MLP of three norms, at 90 % under its running statistics."""
    x, y = digits
    model = models.build("mlp", {"activation": "relu"}, input_shape=x.shape[1:], classes=10, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for rows in torch.randperm(1_400, generator=generator).split(50):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    assert accuracy(model, digits) > 0.9
    return model


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits) -> float:
    x, y = digits
    model.eval()
    share = (model(x).argmax(1) == y).float().mean().item()
    model.train()
    return share


@pytest.mark.parametrize("examples", [32, 250])
def test_a_trained_network_is_let_pass(trained: nn.Module, digits: Digits, examples: int) -> None:
    assert "NL304" not in check(trained, digits[0][:examples], real=True).found


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_statistics_off_by_two_are_found_and_mended(trained: nn.Module, digits: Digits, factor: float) -> None:
    batch = digits[0][:100]
    before = accuracy(trained, digits)
    for norm in batch_norms(trained).values():
        norm.running_var.mul_(factor)
    assert "NL304" not in check(trained, batch).found, "which noise would allow"
    diagnosis = check(trained, batch, real=True, select="NL304")
    assert diagnosis.found.keys() == {"NL304"}
    diagnosis.fix([digits[0]])
    assert not check(trained, batch, real=True, select="NL304").findings
    assert accuracy(trained, digits) > before - 0.02

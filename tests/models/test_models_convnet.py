"""convnet: any dimension, and domains that meet only in the weights."""

import pytest
import torch
from torch import nn

from normlab import models
from normlab.nn import in_domain

SHAPES = {1: (3, 9), 2: (3, 8, 8), 3: (3, 6, 5, 4)}
NAME = "normlab.models.convnet:convnet"


def build(**options: object) -> nn.Module:
    return models.build(NAME, {"channels": 3, "classes": 4, **options}, input_shape=(), classes=4, seed=1)


@pytest.mark.parametrize("dim", SHAPES)
def test_its_dimensions(dim: int) -> None:
    model = build(dim=dim)
    assert model(torch.randn(5, *SHAPES[dim])).shape == (5, 4)
    assert sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()) == 2


@pytest.mark.parametrize("dim", SHAPES)
def test_examples_of_a_domain_pass_by_themselves_in_any_order(dim: int) -> None:
    model = build(dim=dim, domains=3)
    x = torch.randn(7, *SHAPES[dim])
    domain = torch.tensor([2, 0, 0, 2, 2, 0, 0])  # none of domain 1
    x[:, -1] = domain.view(-1, *[1] * dim)
    logits = model(x)
    for number in (0, 2):
        with in_domain(model, number):
            assert torch.equal(logits[domain == number], model.model(x[domain == number]))
    counts = [int(each.num_batches_tracked) for each in model.model.norm1.domains]
    assert counts == [2, 0, 2]


def test_with_domains_it_begins_with_the_same_weights() -> None:
    one, each = build().state_dict(), build(domains=2).state_dict()
    for name in ("conv1.weight", "conv2.bias", "output.weight"):
        assert torch.equal(one[name], each[f"model.{name}"])

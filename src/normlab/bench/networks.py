"""The networks that are measured, as a user of torch would write them, and the arithmetic of their training."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from normlab import models
from normlab.surgery import swap

SHAPE, CLASSES = (1, 28, 28), 10


@dataclasses.dataclass(frozen=True)
class Network:
    """A model with its options, the learning rate it trains at, and the steps of a burst."""

    model: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    lr: float = 0.1
    steps: int = 40


NETWORKS = {
    "lenet": Network("lenet", lr=1.0),
    "lenet-relu": Network("lenet", {"activation": "relu", "pooling": "max"}),
    "lenet-none": Network("lenet", {"norms": "none"}, lr=1.0),
    "mlp": Network("mlp", lr=1.0, steps=120),
    "resnet8": Network("resnet8", steps=4),
}


def build(name: str) -> nn.Module:
    """The network with our norms; its weights are the same in every process."""
    network = NETWORKS[name]
    return models.build(network.model, network.options, input_shape=SHAPE, classes=CLASSES, seed=0)


def build_plain(name: str) -> nn.Module:
    """The same network and weights with torch's own norms."""
    model = build(name)
    swap("batch", "normlab.bench.batch_norm:torch_norm")(model)
    return model


def training_flops(name: str) -> float:
    """Floating-point operations of an example's step in convolutions and linear layers, a multiply-add counted as
    two: forward, and the gradients of weights and inputs, those of the images left out.
    """
    examples = 2
    x, y = torch.zeros(examples, *SHAPE), torch.zeros(examples, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        loss: Tensor = cross_entropy(build_plain(name)(x), y)
        loss.backward()
    return counter.get_total_flops() / examples

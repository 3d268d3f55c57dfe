"""A small network for sequences, images and volumes, and for examples of several domains."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from normlab.nn import in_domain, make_norm

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLINGS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
WIDTHS = (8, 16)
SIDE = 2
"""Of what is left of each axis before the linear layer."""


def convnet(channels: int = 1, classes: int = 10, dim: int = 2, *, domains: int = 0) -> nn.Module:
    """Conv 8@3, norm, ReLU; conv 16@3 stride 2, norm, ReLU; average pool to 2 an axis; linear.

    For x (N, channels, *spatial). With `domains` each norm keeps so many sets of statistics and parameters: the last
    channel of an example holds the number of its domain.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(WIDTHS, 1):
        layers[f"conv{index}"] = CONVOLUTIONS[dim](channels, width, 3, stride=index, padding=1)
        options = {"num_domains": domains} if domains else {}
        layers[f"norm{index}"] = make_norm("domain" if domains else "batch", width, dim, **options)
        layers[f"activation{index}"] = nn.ReLU()
        channels = width
    layers["pool"] = POOLINGS[dim](SIDE)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels * SIDE**dim, classes)
    model = nn.Sequential(layers)
    return ByDomain(model, domains) if domains else model


class ByDomain(nn.Module):
    """Sends the examples of each domain through the model by themselves."""

    def __init__(self, model: nn.Module, domains: int) -> None:
        super().__init__()
        self.model = model
        self.domains = domains

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, C, *spatial), whose last channel holds the number of the domain."""
        domain = x[:, -1].flatten(1)[:, 0]
        rows = [(domain == each).nonzero().flatten() for each in range(self.domains)]
        logits = []
        for number, chosen in enumerate(rows):
            if len(chosen):
                with in_domain(self.model, number):
                    logits.append(self.model(x[chosen]))
        return torch.cat(logits)[torch.cat(rows).argsort()]

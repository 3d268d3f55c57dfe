"""scale_init: initial weights of a given standard deviation, careful or careless."""

import functools

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.flow import Affine
from normlab.surgery.options import with_options


@with_options
class scale_init:
    """Scale the weight of every conv and linear layer to the standard deviation `std`; biases stay.

    Raises NormlabError for a std that is not a positive number.
    """

    std: float

    def __post_init__(self) -> None:
        if not 0 < self.std < float("inf"):
            raise NormlabError("a standard deviation above 0", self.std)

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, layer in model.named_modules():
            if not isinstance(layer, Affine):
                continue
            spread = layer.weight.detach().std(correction=0)
            if not spread > 0:
                changes.left[path] = "has constant weights"
                continue
            before = layer.weight.detach().clone()
            with torch.no_grad():
                layer.weight *= self.std / spread
            changes.record(
                path, f"std {spread:.3g} -> {self.std:.3g}", functools.partial(_write, layer.weight, before)
            )
        return changes


def _write(weight: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(value)

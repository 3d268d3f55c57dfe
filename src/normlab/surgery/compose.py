"""A conv or linear layer and a map of each channel, y = scale * x + shift, as one layer.

Weights are brought to one form for all kinds of layers: (groups, outputs, inputs, taps), outputs and inputs of a
group. A map of the outputs goes into the rows of that matrix and the bias, always. A map of the inputs goes into its
columns, and the shift, through the sum of the taps, into the bias: that is the same number at every position only
where every position sees every tap (Jacob et al. 2018, arXiv 1712.05877, section 3.2, fold the first of the two).
"""

import dataclasses

import torch
from torch import Tensor, nn

Transposed = nn.modules.conv._ConvTransposeNd
Conv = nn.modules.conv._ConvNd


@dataclasses.dataclass(frozen=True)
class Composed:
    """A layer's weight and bias in float64, on the CPU, with the maps that went into them so far."""

    layer: nn.Module
    weight: Tensor
    """(groups, outputs, inputs, taps)"""
    bias: Tensor
    """(groups, outputs)"""

    @classmethod
    def of(cls, layer: nn.Module) -> "Composed":
        weight = _exact(layer.get_parameter("weight"))
        groups = layer.groups if isinstance(layer, Conv) else 1
        weight = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        if isinstance(layer, Transposed):
            weight = weight.transpose(1, 2)
        bias = layer._parameters["bias"]
        return cls(
            layer, weight, weight.new_zeros(weight.shape[:2]) if bias is None else _exact(bias).reshape(groups, -1)
        )

    def then(self, scale: Tensor, shift: Tensor) -> "Composed":
        """The layer, then the map: scale and shift are (C,), for its outputs."""
        scale, shift = scale.reshape(self.bias.shape), shift.reshape(self.bias.shape)
        return Composed(self.layer, self.weight * scale[..., None, None], self.bias * scale + shift)

    def after(self, scale: Tensor, shift: Tensor) -> "Composed":
        """The map, then the layer: scale and shift are (C,), for its inputs. Exact where `uneven` says nothing."""
        columns = (len(self.weight), 1, -1, 1)
        bias = self.bias + (self.weight * shift.reshape(columns)).sum((2, 3))
        return Composed(self.layer, self.weight * scale.reshape(columns), bias)

    def parameters(self) -> dict[str, nn.Parameter]:
        """New parameters for the layer, like its own in shape, dtype, device, layout and requires_grad."""
        old, old_bias = self.layer.get_parameter("weight"), self.layer._parameters["bias"]
        if old_bias is None:
            old_bias = nn.Parameter(old.new_empty(self.bias.numel()), old.requires_grad)
        weight = self.weight.transpose(1, 2) if isinstance(self.layer, Transposed) else self.weight
        return {
            "weight": nn.Parameter(torch.empty_like(old).copy_(weight.reshape(old.shape)), old.requires_grad),
            "bias": nn.Parameter(torch.empty_like(old_bias).copy_(self.bias.flatten()), old_bias.requires_grad),
        }


def channels_of(layer: nn.Module) -> tuple[int, int]:
    """How many it takes and gives; features are the channels of a linear layer."""
    names = ("in_features", "out_features") if isinstance(layer, nn.Linear) else ("in_channels", "out_channels")
    return getattr(layer, names[0]), getattr(layer, names[1])


def uneven(layer: nn.Module) -> str | None:
    """Why a shift of the layer's inputs does not reach all positions of its output alike, or None where it does."""
    if isinstance(layer, Transposed):
        single = all(each == 1 for each in (*layer.kernel_size, *layer.stride)) and not any(layer.output_padding)
        return None if single else "does not take the same part of its weight at every position"
    if isinstance(layer, Conv) and layer.padding_mode == "zeros" and _is_padded(layer):
        return "pads with zeros that the norm has not seen"
    return None


def _is_padded(layer: Conv) -> bool:
    if isinstance(layer.padding, str):
        return layer.padding == "same" and any(each > 1 for each in layer.kernel_size)
    return any(layer.padding)


def _exact(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64)

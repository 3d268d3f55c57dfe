"""A multilayer perceptron; the default is that of Ioffe & Szegedy 2015, section 4.1: three times 100 sigmoids."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from normlab.errors import NormlabError
from normlab.models.parts import activation_layer, flag, initialize_weights, norm_layer, standing


def mlp(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    widths: Sequence[int] = (100, 100, 100),
    activation: str = "sigmoid",
    norms: str | Sequence[int] = "all",
    bias: bool = True,
    dropout: float = 0.0,
    init: str = "torch",
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    seed: int | None = None,
) -> nn.Sequential:
    """flatten; linear, norm, activation for each of `widths`; linear `classes`.

    Args:
        input_shape: of one example, any.
        classes: outputs.
        widths: of the hidden layers.
        activation: sigmoid, relu, tanh or gelu.
        norms: "all", "none", or which of the hidden layers have one: 13 or [1, 3].
        bias: whether the layers before a standing norm have a bias; all others always do.
        dropout: probability, after each activation; 0 is no layer.
        init: torch (its defaults) or xavier (Xavier-uniform weights).
        eps, momentum: of the norms.
        seed: draws each layer's weights from the stream (seed, its path); None, from torch's global generator.

    Raises:
        NormlabError: an option that is none of these.

    """
    widths = [widths] if isinstance(widths, int) else widths
    if isinstance(widths, str) or not all(isinstance(width, int) and width >= 1 for width in widths):
        raise NormlabError("widths of hidden layers, as [100,100,100]", repr(widths))
    stands = standing(norms, {}, len(widths))
    everywhere = flag(bias, "bias")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(input_shape)
    for index, width in enumerate(widths, 1):
        layers[f"linear{index}"] = nn.Linear(features, width, bias=everywhere or index not in stands)
        if index in stands:
            layers[f"norm{index}"] = norm_layer(width, 1, eps, momentum)
        layers[f"activation{index}"] = activation_layer(activation)
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        features = width
    layers["output"] = nn.Linear(features, classes)
    return initialize_weights(nn.Sequential(layers), init, seed)

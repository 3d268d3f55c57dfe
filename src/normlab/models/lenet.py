"""LeNet as in *Dive into Deep Learning*, with batch normalization (chapter "Batch Normalization") or without.

LeCun et al. 1998 with the book's changes: average pooling and sigmoids throughout, no padding, ten classes.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from normlab.models.parts import (
    activation_layer,
    check_images,
    flag,
    initialize_weights,
    norm_layer,
    pooling_layer,
    standing,
)

CHANNELS = (6, 16)
HIDDEN = (120, 84)
KERNEL = 5


def lenet(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    activation: str = "sigmoid",
    pooling: str = "avg",
    norms: str | Sequence[int] = "all",
    bias: bool = True,
    dropout: float = 0.0,
    init: str = "torch",
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    seed: int | None = None,
) -> nn.Sequential:
    """Conv 6@5x5, norm, activation, pool 2; conv 16@5x5, likewise; linear 120, norm, activation; linear 84,
    likewise; linear `classes`. For (1, 28, 28) and ten classes 44,878 parameters, of which 226 (the biases
    before a norm) are redundant.

    Args:
        input_shape: (C, H, W) of one example, at least 16 by 16.
        classes: outputs.
        activation: sigmoid, relu, tanh or gelu.
        pooling: avg or max.
        norms: "all", "none", "conv", "linear", or which of the four stand: 13 or [1, 3].
        bias: whether the layers before a standing norm have a bias; all others always do.
        dropout: probability, after the activations of the linear layers; 0 is no layer.
        init: torch (its defaults) or xavier (the book's: Xavier-uniform weights).
        eps, momentum: of the norms.
        seed: draws each layer's weights from the stream (seed, its path); None, from torch's global generator.

    Raises:
        NormlabError: an option that is none of these, or an input too small.

    """
    input_shape = tuple(input_shape)
    check_images(input_shape, 16, "lenet")
    stands = standing(norms, {"conv": (1, 2), "linear": (3, 4)}, 4)
    everywhere = flag(bias, "bias")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, *size = input_shape
    for index, width in enumerate(CHANNELS, 1):
        layers[f"conv{index}"] = nn.Conv2d(channels, width, KERNEL, bias=everywhere or index not in stands)
        if index in stands:
            layers[f"norm{index}"] = norm_layer(width, 2, eps, momentum)
        layers[f"activation{index}"] = activation_layer(activation)
        layers[f"pool{index}"] = pooling_layer(pooling)
        channels, size = width, [(side - KERNEL + 1) // 2 for side in size]
    layers["flatten"] = nn.Flatten()
    features = channels * size[0] * size[1]
    for index, width in enumerate(HIDDEN, 3):
        layers[f"linear{index}"] = nn.Linear(features, width, bias=everywhere or index not in stands)
        if index in stands:
            layers[f"norm{index}"] = norm_layer(width, 1, eps, momentum)
        layers[f"activation{index}"] = activation_layer(activation)
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        features = width
    layers["output"] = nn.Linear(features, classes)
    return initialize_weights(nn.Sequential(layers), init, seed)

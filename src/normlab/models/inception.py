"""A small Inception for small images: the network of "14 times fewer training steps", at the size of a CPU.

Szegedy et al. 2014, arXiv 1409.4842, with the two 3x3 convolutions that Ioffe & Szegedy 2015, arXiv 1502.03167,
appendix, have in the place of a 5x5, and a norm behind every convolution.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError, choose
from normlab.models.parts import activation_layer, check_images, flag, initialize_weights, norm_layer

Convolution = tuple[int, int]
"""Output channels and the side of the kernel."""
MakeBranch = Callable[..., "OrderedDict[str, nn.Module]"]


class Block(nn.Module):
    """Four branches over one input (N, C, H, W), their outputs side by side: (N, 4 `width`, H, W).

    1x1; 1x1, 3x3; 1x1, 3x3, 3x3; average pool, 1x1.
    """

    def __init__(self, channels: int, width: int, branch: MakeBranch) -> None:
        super().__init__()
        one, three = (width, 1), (width, 3)
        self.one = nn.Sequential(branch(channels, one))
        self.three = nn.Sequential(branch(channels, one, three))
        self.five = nn.Sequential(branch(channels, one, three, three))
        pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.pooled = nn.Sequential(OrderedDict(pool=pool, **branch(channels, one)))

    def forward(self, x: Tensor) -> Tensor:
        """From x (N, C, H, W) to (N, 4 width, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)


def inception(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    activation: str = "relu",
    norms: str = "all",
    bias: bool = True,
    init: str = "torch",
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    width: int = 16,
    seed: int | None = None,
) -> nn.Sequential:
    """Conv 32@5x5 by 2, max pool; two blocks of width 16; max pool; two of width 32; average pool; linear.

    29 convolutions, each followed by a norm and an activation. For (1, 28, 28) and ten classes 104,042 parameters,
    of which 704 (the biases before a norm) are redundant, and 2.4 million multiplications for an example.

    Args:
        input_shape: (C, H, W) of one example, at least 8 by 8.
        classes: outputs.
        activation: relu, sigmoid, tanh or gelu.
        norms: "all" or "none".
        bias: whether the convolutions before a norm have a bias; all others always do.
        init: torch (its defaults) or xavier (Xavier-uniform weights).
        eps, momentum: of the norms.
        width: channels of each branch of the first two blocks; all others follow it.
        seed: draws each layer's weights from the stream (seed, its path); None, from torch's global generator.

    Raises:
        NormlabError: an option that is none of these, or an input too small.

    """
    input_shape = tuple(input_shape)
    check_images(input_shape, 8, "inception")
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise NormlabError("width as a number of channels", repr(width))
    normed = choose({"all": True, "none": False}, norms, "placement of norms")
    biased = flag(bias, "bias") or not normed

    def branch(channels: int, *convolutions: Convolution, stride: int = 1) -> OrderedDict[str, nn.Module]:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (out, side) in enumerate(convolutions, 1):
            layers[f"conv{index}"] = nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=biased)
            if normed:
                layers[f"norm{index}"] = norm_layer(out, 2, eps, momentum)
            layers[f"activation{index}"] = activation_layer(activation)
            channels = out
        return layers

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(branch(input_shape[0], (2 * width, 5), stride=2))
    channels = 2 * width
    for index, channels_out in enumerate((width, width, 2 * width, 2 * width), 1):
        if index in (1, 3):
            layers[f"pool{index // 2 + 1}"] = nn.MaxPool2d(3, stride=2, padding=1)
        layers[f"block{index}"] = Block(channels, channels_out, branch)
        channels = 4 * channels_out
    layers["pool3"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return initialize_weights(nn.Sequential(layers), init, seed)

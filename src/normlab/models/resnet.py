"""The residual networks for small images of He et al. 2015, arXiv 1512.03385, section 4.2: 6n + 2 layers.

Where a block changes the shape, its shortcut is a 1x1 convolution with a norm (the paper's option B; its own small
networks pad with zeros, which is option A).
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from normlab.errors import NormlabError, choose
from normlab.models.parts import activation_layer, check_images, flag, initialize_weights, norm_layer

Convolution = Callable[..., "OrderedDict[str, nn.Module]"]
"""Channels in, channels out, side of the kernel, stride and a number for the names, to a convolution and its norm."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, from (N, C, H, W) to (N, `width`, H / `stride`, W / `stride`)."""

    def __init__(self, channels: int, width: int, stride: int, convolution: Convolution, activation: str) -> None:
        super().__init__()
        inner = convolution(channels, width, 3, stride, 1)
        inner["activation1"] = activation_layer(activation)
        self.residual = nn.Sequential(OrderedDict(**inner, **convolution(width, width, 3, 1, 2)))
        changes = stride != 1 or channels != width
        self.shortcut = nn.Sequential(convolution(channels, width, 1, stride, 1)) if changes else nn.Identity()
        self.activation2 = activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        """From x (N, C, H, W) to the activation of residual + shortcut."""
        return self.activation2(self.residual(x) + self.shortcut(x))


def resnet(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    depth: int = 8,
    width: int = 16,
    activation: str = "relu",
    norms: str = "all",
    bias: bool = False,
    init: str = "torch",
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    seed: int | None = None,
) -> nn.Sequential:
    """Conv 3x3, norm, activation; three stages of (depth - 2) / 6 blocks, `width`, 2 and 4 times `width` channels
    wide, the second and third at half the size of the one before; global average pool; linear `classes`.

    For (1, 28, 28) and ten classes, depth 8 and width 16: 77,754 parameters.

    Args:
        input_shape: (C, H, W) of one example, at least 8 by 8.
        classes: outputs.
        depth: 8, 14, 20 and so on by 6: the convolutions on the longest way, and the linear layer.
        width: channels of the first stage.
        activation: relu, sigmoid, tanh or gelu.
        norms: "all" or "none".
        bias: whether the convolutions before a norm have a bias; all others always do.
        init: torch (its defaults) or xavier (Xavier-uniform weights).
        eps, momentum: of the norms.
        seed: draws each layer's weights from the stream (seed, its path); None, from torch's global generator.

    Raises:
        NormlabError: an option that is none of these, or an input too small.

    """
    input_shape = tuple(input_shape)
    check_images(input_shape, 8, "resnet")
    if type(depth) is not int or depth < 8 or depth % 6 != 2:
        raise NormlabError("depth as 8, 14, 20 and so on by 6", repr(depth))
    if type(width) is not int or width < 1:
        raise NormlabError("width as a number of channels", repr(width))
    normed = choose({"all": True, "none": False}, norms, "placement of norms")
    biased = flag(bias, "bias") or not normed

    def convolution(channels: int, out: int, side: int, stride: int, index: int) -> OrderedDict[str, nn.Module]:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers[f"conv{index}"] = nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=biased)
        if normed:
            layers[f"norm{index}"] = norm_layer(out, 2, eps, momentum)
        return layers

    layers = convolution(input_shape[0], width, 3, 1, 1)
    layers["activation1"] = activation_layer(activation)
    channels = width
    for stage, out in enumerate((width, 2 * width, 4 * width), 1):
        for block in range(1, (depth - 2) // 6 + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_block{block}"] = BasicBlock(channels, out, stride, convolution, activation)
            channels = out
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return initialize_weights(nn.Sequential(layers), init, seed)


resnet8 = functools.partial(resnet, depth=8)
resnet20 = functools.partial(resnet, depth=20)
resnet56 = functools.partial(resnet, depth=56)

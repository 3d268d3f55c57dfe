"""Deep networks of one width, linear or not: where the theory of signal propagation applies.

Yang et al. 2019, arXiv 1902.08129, section 2; Schoenholz et al. 2017, arXiv 1611.01232: fully connected layers of one
width, normal weights of variance gain^2 / fan-in, no bias.
"""

import functools
import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from normlab.errors import NormlabError, choose
from normlab.models.parts import ACTIVATIONS, draw_weights, norm_layer


def deep(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    depth: int = 20,
    width: int = 100,
    activation: str = "relu",
    norms: str = "all",
    gain: float = 1.0,
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    seed: int | None = None,
) -> nn.Sequential:
    """flatten; `depth` times linear `width`, norm, activation; linear `classes`. No layer but a norm has a bias.

    Args:
        input_shape: of one example, any.
        classes: outputs.
        depth: hidden layers.
        width: of each of them.
        activation: relu, sigmoid, tanh, gelu, or none: a linear network.
        norms: "all" or "none".
        gain: weights are normal with the standard deviation gain / sqrt(fan-in); sqrt(2) keeps the mean square of a
            ReLU network without norms (He et al. 2015).
        eps, momentum: of the norms.
        seed: draws each layer's weights from the stream (seed, its path); None, from torch's global generator.

    Raises:
        NormlabError: an option that is none of these.

    """
    for value, name in ((depth, "depth as a number of layers"), (width, "width as a number of units")):
        if type(value) is not int or value < 1:
            raise NormlabError(name, repr(value))
    if not isinstance(gain, int | float) or not 0 < gain < math.inf:
        raise NormlabError("a gain above 0", repr(gain))
    normed = choose({"all": True, "none": False}, norms, "placement of norms")
    nonlinear = choose({**ACTIVATIONS, "none": None}, activation, "activation")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(input_shape)
    for index in range(1, depth + 1):
        layers[f"linear{index}"] = nn.Linear(features, width, bias=False)
        if normed:
            layers[f"norm{index}"] = norm_layer(width, 1, eps, momentum)
        if nonlinear:
            layers[f"activation{index}"] = nonlinear()
        features = width
    layers["output"] = nn.Linear(features, classes, bias=False)
    return draw_weights(nn.Sequential(layers), functools.partial(_normal, gain), seed)


def _normal(gain: float, weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=gain / math.sqrt(weight.shape[1]))

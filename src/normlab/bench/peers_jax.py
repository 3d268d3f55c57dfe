"""The same training in JAX and nothing else: one jitted step with the data's loading, batch norm and SGD in it.

The layers are read off the torch network. Images lie as XLA's CPU convolutions take them, channels last; weights keep
torch's layout and names, so that the two can be compared.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from torch import Tensor, nn

from normlab.data import Examples
from normlab.models.resnet import BasicBlock

Array = Any


class Scope:
    """Parameters and running statistics by name, and the statistics after the step."""

    def __init__(self, parameters: dict[str, Array], statistics: dict[str, Array]) -> None:
        self.parameters = parameters
        self.statistics = statistics
        self.updated: dict[str, Array] = {}


def _convolution(layer: nn.Conv2d, x: Array, path: str, scope: Scope) -> Array:
    padding = [(each, each) for each in layer.padding if not isinstance(each, str)]
    x = lax.conv_general_dilated(
        x, scope.parameters[f"{path}.weight"], layer.stride, padding, dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    return x if layer.bias is None else x + scope.parameters[f"{path}.bias"]


def _linear(layer: nn.Linear, x: Array, path: str, scope: Scope) -> Array:
    x = x @ scope.parameters[f"{path}.weight"].T
    return x if layer.bias is None else x + scope.parameters[f"{path}.bias"]


def _batch_norm(layer: nn.modules.batchnorm._BatchNorm, x: Array, path: str, scope: Scope) -> Array:
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    count, rate = x.size // x.shape[-1], layer.momentum or 0.0
    for name, value in (("mean", mean), ("var", var * (count / (count - 1)))):
        key = f"{path}.running_{name}"
        scope.updated[key] = (1 - rate) * scope.statistics[key] + rate * lax.stop_gradient(value)
    scale = scope.parameters[f"{path}.weight"] * lax.rsqrt(var + layer.eps)
    return (x - mean) * scale + scope.parameters[f"{path}.bias"]


def _window(layer: nn.AvgPool2d | nn.MaxPool2d) -> tuple[int, int, int, int]:
    side = layer.kernel_size
    if not isinstance(side, int) or layer.stride != side or layer.padding:
        raise NotImplementedError(f"{layer} in JAX")
    return (1, side, side, 1)


def _average(layer: nn.AvgPool2d, x: Array, path: str, scope: Scope) -> Array:
    window = _window(layer)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / (window[1] * window[2])


def _maximum(layer: nn.MaxPool2d, x: Array, path: str, scope: Scope) -> Array:
    window = _window(layer)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _flatten(layer: nn.Flatten, x: Array, path: str, scope: Scope) -> Array:
    return (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(len(x), -1)


def _block(block: BasicBlock, x: Array, path: str, scope: Scope) -> Array:
    sides = (run(getattr(block, each), x, f"{path}.{each}", scope) for each in ("residual", "shortcut"))
    return run(block.activation2, sum(sides), f"{path}.activation2", scope)


def _sequence(layers: nn.Sequential, x: Array, path: str, scope: Scope) -> Array:
    for name, layer in layers.named_children():
        x = run(layer, x, f"{path}.{name}".lstrip("."), scope)
    return x


LAYERS: dict[type, Callable[..., Array]] = {
    nn.Sequential: _sequence,
    BasicBlock: _block,
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.AvgPool2d: _average,
    nn.MaxPool2d: _maximum,
    nn.Flatten: _flatten,
    nn.AdaptiveAvgPool2d: lambda layer, x, path, scope: x.mean((1, 2), keepdims=True),  # to 1 x 1
    nn.Sigmoid: lambda layer, x, path, scope: jax.nn.sigmoid(x),
    nn.ReLU: lambda layer, x, path, scope: jax.nn.relu(x),
    nn.Identity: lambda layer, x, path, scope: x,
}


def run(layer: nn.Module, x: Array, path: str, scope: Scope) -> Array:
    """What the layer gives in training, channels last."""
    return LAYERS[type(layer)](layer, x, path, scope)


class Jax:
    """A network of torch's trained by JAX."""

    def __init__(self, model: nn.Module, split: Examples, rate: float) -> None:
        named = dict(model.named_buffers())
        self.parameters = {name: jnp.array(value.detach().numpy()) for name, value in model.named_parameters()}
        self.statistics = {key: jnp.array(named[key].numpy()) for key in named if "running_" in key}
        self.x, self.y = jnp.array(split.x.permute(0, 2, 3, 1).numpy()), jnp.array(split.y.numpy())

        def loss_of(
            parameters: dict[str, Array], statistics: dict[str, Array], x: Array, y: Array
        ) -> tuple[Array, dict[str, Array]]:
            scope = Scope(parameters, statistics)
            logits = run(model, x, "", scope)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
            return -chosen.mean(), scope.updated

        def step(
            parameters: dict[str, Array], statistics: dict[str, Array], images: Array, labels: Array, index: Array
        ) -> tuple[dict[str, Array], dict[str, Array], Array]:
            x = images[index]
            x = x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
            slope = jax.value_and_grad(loss_of, has_aux=True)
            (loss, statistics), gradients = slope(parameters, statistics, x, labels[index])
            parameters = jax.tree.map(lambda value, gradient: value - rate * gradient, parameters, gradients)
            return parameters, statistics, loss

        self.jitted = jax.jit(step, donate_argnums=(0, 1))

    def step(self, index: Tensor) -> None:
        self.parameters, self.statistics, self.last = self.jitted(
            self.parameters, self.statistics, self.x, self.y, index.numpy()
        )

    def loss(self) -> float:
        return float(jax.block_until_ready((self.last, self.parameters))[0])

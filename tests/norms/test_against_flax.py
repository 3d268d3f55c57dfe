"""Batch, layer, group and RMS norm against those of another framework: values, gradients, running statistics."""

import numpy as np
import pytest
import torch

from compare import assert_close
from normlab import nn

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")

OF_EXAMPLE = {"epsilon": 1e-5, "reduction_axes": (1, 2, 3), "use_fast_variance": False}  # the fast one cancels
CASES = {
    "batch": lambda: nnx.BatchNorm(6, momentum=0.9, use_fast_variance=False, rngs=nnx.Rngs(0)),
    "layer": lambda: nnx.LayerNorm(6, **OF_EXAMPLE, rngs=nnx.Rngs(0)),
    "group": lambda: nnx.GroupNorm(6, 3, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0)),
    "rms": lambda: nnx.RMSNorm(6, **OF_EXAMPLE, rngs=nnx.Rngs(0)),
}


def to_flax(x):
    """(N, C, H, W) as (N, H, W, C)."""
    return x.detach().movedim(1, -1).numpy()


def to_torch(x):
    return torch.from_numpy(np.array(x)).movedim(-1, 1 if x.ndim > 1 else 0)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_flax(name):
    generator = torch.Generator().manual_seed(0)
    x, g = 2 * torch.randn(2, 5, 6, 4, 3, generator=generator) + 3
    ours, theirs = nn.make_norm(name, 6, 2), CASES[name]()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(6, generator=generator))
    theirs.scale[...] = ours.weight.detach().numpy()
    if ours.bias is not None:
        theirs.bias[...] = ours.bias.detach().numpy()

    def loss(layer, x):
        y = layer(x)
        return (y * to_flax(g)).sum(), y

    (parameters, dx), expected = nnx.grad(loss, argnums=(0, 1), has_aux=True)(theirs, to_flax(x))
    y = ours(x.requires_grad_())
    y.backward(g)
    assert_close(y, to_torch(expected), what="y")
    assert_close(x.grad, to_torch(dx), scale=8, what="gradient of x")
    assert_close(ours.weight.grad, to_torch(parameters["scale"][...]), scale=8, what="gradient of weight")
    if ours.bias is not None:
        assert_close(ours.bias.grad, to_torch(parameters["bias"][...]), scale=8, what="gradient of bias")
    if name == "batch":
        n = x.numel() / 6
        assert_close(ours.running_mean, to_torch(theirs.mean[...]), what="running mean")
        # Flax averages the biased variance.
        unbiased = 0.9 + (to_torch(theirs.var[...]) - 0.9) * n / (n - 1)
        assert_close(ours.running_var, unbiased, what="running variance")

"""What gamma and beta do after the normalization, and their gradients."""

import torch
from torch import Tensor
from torch.func import functional_call

from normlab.testing.compare import same, same_map
from normlab.testing.kinds import ALL
from normlab.testing.law import law
from normlab.testing.subject import Subject, eps_of, needs, run

SCALED = ALL - {"any", "response", "weights", "dropout", "noisy", "noisy-normal"}
"""Kinds that end in gamma and beta, one of each for every channel, if they have them."""


@law("dgamma = sum g xh, dbeta = sum g", "1e-5 float32, 1e-12 float64", SCALED)
def affine_gradients(subject: Subject) -> None:
    """The gradient of gamma is the sum of g times the normalized values, beta's that of g."""
    layer, x = subject.make(drawn=True), subject.draw()
    needs(layer, "weight")
    parameters: list[Tensor] = [p for p in (layer.weight, getattr(layer, "bias", None)) if isinstance(p, Tensor)]
    y, xh = run(layer, x), run(subject.make(), x).detach()
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(y)
    found = torch.autograd.grad(y, parameters, g, allow_unused=True)
    reduced = [0, *range(2, y.dim())]
    within = subject.exact(1e-12, 1e-5) * subject.condition(x, layer)
    for name, gradient, expected in zip(("dgamma", "dbeta"), found, (g * xh, g), strict=False):
        zero = torch.zeros(y.shape[1], dtype=y.dtype)
        same(name, zero if gradient is None else gradient.flatten(), expected.sum(reduced), within, x)


@law("y = gamma xh + beta", "8 u k", SCALED)
def affine_form(subject: Subject) -> None:
    """Each channel's own gamma scales, and its own beta shifts, what comes out."""
    layer, x = subject.make(drawn=True), subject.draw()
    needs(layer, "weight")
    plain = subject.make()

    def expected(x: Tensor) -> Tensor:
        y = run(plain, x) * _column(layer.weight, x)
        bias = getattr(layer, "bias", None)
        return y if bias is None else y + _column(bias, x)

    within = 8 * subject.u * subject.condition(x, layer)
    same_map("gamma xh + beta", lambda x: run(layer, x), expected, within, x)


@law("gamma = s, beta = mu: y = h", "1e-5 float32, 1e-12 float64, times k", frozenset({"batch"}))
def identity_within_reach(subject: Subject) -> None:
    """With gamma = s and beta = mu, taken from the batch itself, the layer is the identity, in gradients too."""
    layer, x = subject.make(), subject.draw()
    needs(layer, "weight", "bias")
    eps = eps_of(layer)
    # A layer may keep them further within, and show them.
    paths = {id(parameter): path for path, parameter in layer.named_parameters()}
    weight, bias = paths[id(layer.weight)], paths[id(layer.bias)]

    def undone(x: Tensor) -> Tensor:
        s = (subject.spread(x, layer)[:, 0] + eps).sqrt()
        mu = subject.rows(x, layer).mean(1)
        return functional_call(layer, {weight: s, bias: mu}, (x,))

    within = subject.exact(1e-12, 1e-5) * subject.condition(x, layer)
    same_map("y at gamma = s, beta = mu", undone, lambda x: x, within, x)


def _column(per_channel: object, x: Tensor) -> Tensor:
    assert isinstance(per_channel, Tensor)
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))

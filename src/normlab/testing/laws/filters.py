"""Laws of layers that standardize their own weights, filter by filter."""

import torch
from torch import Tensor
from torch.func import functional_call

from normlab.testing.compare import same_map
from normlab.testing.law import law
from normlab.testing.subject import Subject, needs, run

FILTERS = frozenset({"weights"})


@law("y(W + c) = y(W), sum over each filter of dW = 0", "1e-4 float32, 1e-11 float64", FILTERS)
def filters_have_no_mean(subject: Subject) -> None:
    """A constant that is added to a filter changes nothing."""
    layer, x = subject.make(), subject.draw()
    needs(layer, "weight")
    weight = layer.weight
    assert isinstance(weight, Tensor)
    c = torch.linspace(-0.5, 0.5, weight.shape[0], dtype=x.dtype).reshape(-1, *[1] * (weight.dim() - 1))
    fixed = run(layer, x).detach()

    def moved(c: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight.detach() + c}, (x,))

    same_map("y of W + c", moved, lambda c: fixed, subject.exact(1e-11, 1e-4), c)


@law("y(aW) = y(W) as eps -> 0, a > 0", "1e-2", FILTERS)
def filters_have_no_scale(subject: Subject) -> None:
    """Large filters have no scale: what eps lets through vanishes."""
    layer, x = subject.make(), subject.draw()
    needs(layer, "weight")
    weight = layer.weight
    assert isinstance(weight, Tensor)
    large = 100.0 * weight.detach()
    a = torch.full((weight.shape[0], *[1] * (weight.dim() - 1)), 3.0, dtype=x.dtype)

    def output(weight: Tensor, x: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight}, (x,))

    fixed = output(large, x).detach()
    same_map("y of a W", lambda a: output(a * large, x), lambda a: fixed, 1e-2, a)

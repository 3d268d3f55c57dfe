"""How two tensors, or two maps, are found to be the same: every map together with its gradients."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Map = Callable[..., Tensor]

GRADIENTS = 8
"""A gradient may be off by so many times what the value may: it takes several of the value's operations."""


class Broken(Exception):  # noqa: N818 - a finding, no error of the program
    """What a law found: what was compared, on which inputs, what was expected and what came."""

    def __init__(self, what: str, inputs: str, expected: str, got: str) -> None:
        super().__init__(f"{what}, x {inputs}: expected {expected}, got {got}")


def same(what: str, got: Tensor, expected: Tensor, tolerance: float, *inputs: Tensor) -> None:
    """Raises Broken unless |got - expected| <= tolerance * max(1, max |expected|) in every element.

    `inputs` are what the law was asked on, for the message. NaN is never the same.
    """
    described = describe(inputs or (got,))
    if got.shape != expected.shape:
        raise Broken(what, described, f"shape {tuple(expected.shape)}", f"shape {tuple(got.shape)}")
    got, expected = got.detach().double(), expected.detach().double()
    if got.numel() == 0:
        return
    allowed = tolerance * max(1.0, expected.abs().max().item())
    off = (got - expected).abs()
    if bool((off <= allowed).all()):
        return
    worst = int(torch.where(off.isnan(), torch.inf, off).argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape))
    raise Broken(
        what,
        described,
        f"{expected.flatten()[worst].item():.9g} within {allowed:.2g}",
        f"{got.flatten()[worst].item():.9g} at {place}",
    )


def same_map(what: str, got: Map, expected: Map, tolerance: float, *inputs: Tensor) -> None:
    """Raises Broken unless both maps agree at the inputs, and so do their gradients along one random cotangent.

    An identity that holds wherever it is asked holds for the derivatives too: this is how a law sees a layer
    whose values are right and whose backward is not.
    """
    value, gradients = pull_back(got, inputs)
    wanted, wanted_gradients = pull_back(expected, inputs)
    same(what, value, wanted, tolerance, *inputs)
    for number, (one, two) in enumerate(zip(gradients, wanted_gradients, strict=True)):
        name = "its gradient" if len(inputs) == 1 else f"its gradient of input {number}"
        same(f"{what}: {name}", one, two, GRADIENTS * tolerance, *inputs)


def pull_back(f: Map, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The value of f, and its gradients with respect to each input along one fixed random cotangent."""
    leaves = [each.detach().clone(memory_format=torch.preserve_format).requires_grad_() for each in inputs]
    value = f(*leaves)
    if not value.requires_grad:
        return value, [torch.zeros_like(leaf) for leaf in leaves]
    along = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    gradients = torch.autograd.grad(value, leaves, along.to(value), allow_unused=True)
    filled = [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(gradients, leaves, strict=True)]
    return value.detach(), filled


def differ(what: str, got: Map, other: Map, least: float, *inputs: Tensor) -> None:
    """Raises Broken unless the maps differ somewhere by `least` in value, and in gradient."""
    value, gradients = pull_back(got, inputs)
    others, other_gradients = pull_back(other, inputs)
    for name, one, two in (
        (what, value, others),
        *((f"{what}: its gradient", *pair) for pair in zip(gradients, other_gradients, strict=True)),
    ):
        off = (one.double() - two.double()).abs().max().item()
        if not off >= least:
            raise Broken(name, describe(inputs), f"a difference of {least:.2g} or more", f"{off:.2g}")


def describe(inputs: Sequence[Tensor]) -> str:
    """Type, shape, mean and deviation of each input, on one line."""
    return " and ".join(
        f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} of mean {x.double().mean():.3g}, "
        f"sigma {x.double().std(correction=0):.3g}"
        for x in inputs
    )

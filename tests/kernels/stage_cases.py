"""Stages to try: what a case holds, what hypothesis may make of it, and how far from the truth rounding may lead."""

import dataclasses
import math
from types import SimpleNamespace

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from normlab.kernels import Pool, Settings
from normlab.kernels.lanes import REFERENCE_WIDTH, pack_reference, unpack_reference
from normlab.kernels.stage import ACTIVATIONS, stage_reference

REFERENCE = SimpleNamespace(
    width=REFERENCE_WIDTH, pack=pack_reference, unpack=unpack_reference, stage=stage_reference
)

MULTIPLIES = 4_000_000
"""Of a case, at most."""


@dataclasses.dataclass(frozen=True)
class Case:
    """All of a stage but its numbers, and the seed of those."""

    count: int
    shape: tuple[int, ...]
    settings: Settings
    weight: tuple[int, ...] | None = None
    bias: bool = False
    affine: bool = False
    residual: bool = False
    mask: bool = False
    seed: int = 0

    @property
    def inner(self) -> tuple[int, ...]:
        """(out, H, W) or (out,) of what the head gives."""
        if self.weight is None:
            return self.shape
        s = self.settings
        sides = zip(self.shape[1:], self.weight[2:], s.stride, s.padding, strict=False)
        return (self.weight[0], *((side + 2 * pad - kernel) // step + 1 for side, kernel, step, pad in sides))

    @property
    def exact(self) -> bool:
        """Whether sums of few bits are not rounded: a convolution by fewer multiplications rounds its weights."""
        if self.weight is None or len(self.weight) == 2:
            return True
        return self.settings.stride != (1, 1) or self.weight[3] not in (3, 4, 5)

    def tensors(self) -> dict[str, Tensor]:
        """By the names of `stage`, float32. Inputs and weights have few bits where it is exact: without a norm no sum
        is rounded, and with one what is equal stays so, so that both sides of a comparison find the same maximum.
        """
        generator = torch.Generator().manual_seed(self.seed)

        def grid(*shape: int) -> Tensor:
            if not self.exact:
                return torch.randn(*shape, generator=generator)
            return torch.randint(-16, 17, shape, generator=generator) / 8

        found = {"x": grid(self.count, *self.shape)}
        if self.weight is not None:
            fan = math.prod(self.weight[1:])
            found["weight"] = grid(*self.weight) / 2 ** round(math.log2(fan) / 2)
        outputs = self.inner[0]
        if self.bias:
            found["bias"] = grid(outputs)
        if self.affine:
            found["gamma"] = torch.randn(outputs, generator=generator)
            found["beta"] = torch.randn(outputs, generator=generator)
        if self.settings.norm == "fixed":
            found["mean"] = torch.randn(outputs, generator=generator)
            found["var"] = torch.rand(outputs, generator=generator) + 0.1
        if self.residual:
            found["residual"] = grid(self.count, *self.inner)
        if self.mask:
            found["mask"] = torch.randint(0, 2, (self.count, *self.inner), generator=generator) * 2.0
        return found


def _pair(draw, low, high):
    return draw(st.integers(low, high)), draw(st.integers(low, high))


def _pools(draw, sides):
    if min(sides) > 1 and draw(st.booleans()):
        return Pool(draw(st.sampled_from(["avg", "max"])), (2, 2), (2, 2))
    size = [min(draw(st.integers(1, 4)), side + 2 * (side // 2)) for side in sides]
    padding = tuple(
        draw(st.integers(max(0, (length - side + 1) // 2), length // 2))
        for length, side in zip(size, sides, strict=True)
    )
    stride = tuple(size) if draw(st.booleans()) else _pair(draw, 1, 3)
    return Pool(draw(st.sampled_from(["avg", "max"])), tuple(size), stride, padding, draw(st.booleans()))


@st.composite
def cases(draw):
    head = draw(st.sampled_from(["conv", "conv", "conv, stride 1", "conv, stride 1", "linear", "none", "none, flat"]))
    channels, outputs = draw(st.sampled_from([1, 2, 3, 5, 6, 16, 19])), draw(st.sampled_from([1, 2, 4, 7, 16, 19]))
    flat = head in ("linear", "none, flat")
    sides = () if flat else _pair(draw, 1, 10)
    shape = (channels * draw(st.sampled_from([1, 3, 13])),) if flat else (channels, *sides)
    weight, stride, padding = None, (1, 1), (0, 0)
    if head == "linear":
        weight = (outputs, *shape)
    elif head.startswith("conv"):
        padding = _pair(draw, 0, 4)
        least, stride = (1, _pair(draw, 1, 3)) if head == "conv" else (3, (1, 1))
        most = [min(5, side + 2 * pad) for side, pad in zip(sides, padding, strict=True)]
        weight = (outputs, channels, *(draw(st.integers(min(least, each), each)) for each in most))
    kinds = st.sampled_from(list(ACTIVATIONS))
    norm = draw(st.sampled_from(["batch", "batch", "fixed", "none"]))
    before, activation = draw(st.one_of(st.just("none"), kinds)), draw(kinds)
    part = draw(st.sampled_from(["both", "both", "mean", "variance"]))
    case = Case(1, shape, Settings(stride, padding, before, norm, 1e-5, activation, part=part), weight)
    inner = case.inner
    pool = _pools(draw, inner[1:]) if not flat and draw(st.booleans()) else None
    work = math.prod(inner) * (1 if weight is None else math.prod(weight[1:]))
    return dataclasses.replace(
        case,
        count=min(draw(st.one_of(st.integers(1, 40), st.integers(1, 300))), max(1, MULTIPLIES // work)),
        settings=dataclasses.replace(case.settings, pool=pool),
        bias=weight is not None and draw(st.booleans()),
        affine=norm != "none" and draw(st.booleans()),
        residual=draw(st.sampled_from([False, False, True])),
        mask=draw(st.sampled_from([False, False, True])),
        seed=draw(st.integers(0, 2**32)),
    )


def run(code, case, tensors, dtype=torch.float32):
    """Outputs, statistics and all gradients by name, the gradient of the output being the same whatever the code."""
    given = {
        name: value.to(dtype, copy=True).requires_grad_(name not in ("mean", "var", "mask"))
        for name, value in tensors.items()
    }
    packed = {name: code.pack(given[name]) for name in ("x", "residual", "mask") if name in given}
    out, mean, var = code.stage(settings=case.settings, **given | packed)
    y = code.unpack(out)
    leaves = {name: value for name, value in given.items() if value.requires_grad}
    gradients = torch.autograd.grad(y, list(leaves.values()), gradient_of(y).to(dtype))
    found = {"out": y.detach()} | {f"d{name}": each for name, each in zip(leaves, gradients, strict=True)}
    return found | ({"mean": mean, "var": var} if mean is not None else {})


def gradient_of(y):
    return torch.randint(-8, 9, y.shape, generator=torch.Generator().manual_seed(len(y))) / 4


def before_activation(case, tensors):
    """What the activation is applied to, the head's output, and what normalizes it, in float64."""
    given = {name: value.double() for name, value in tensors.items()}
    x = pack_reference(given["x"])

    def through(settings, *names):
        others = {name: given[name] for name in names if name in given}
        others = {n: pack_reference(v) if n == "residual" else v for n, v in others.items()}
        return stage_reference(x, settings, **others)

    plain = dataclasses.replace(case.settings, activation="none", pool=None)
    z, _, var = through(plain, "weight", "bias", "gamma", "beta", "mean", "var", "residual")
    y, _, _ = through(dataclasses.replace(plain, before="none", norm="none"), "weight", "bias")
    y = unpack_reference(y)
    var = given.get("var") if var is None else var
    scales = var is not None and case.settings.part != "mean"
    factor = (var + case.settings.eps).rsqrt() if scales else torch.ones(y.shape[1], dtype=torch.float64)
    return unpack_reference(z), y, factor, given.get("gamma", torch.ones(1, dtype=torch.float64)).abs()


def at_a_kink(case, tensors):
    """Whether rounding decides on which side of zero a ReLU's input lies, or which of a window is the largest."""
    z, *_ = before_activation(case, tensors)
    near = 2e-6 * z.abs().max()
    rounded = not case.exact or case.settings.norm != "none" or case.settings.before not in ("none", "relu")
    if case.settings.activation == "relu" and ((z.abs() < near) & (rounded | (z != 0))).any():
        return True
    pool = case.settings.pool
    if pool is None or pool.kind != "max" or case.exact:
        return False
    active = ACTIVATIONS[case.settings.activation](z)
    if "mask" in tensors:
        active = active * tensors["mask"]
    windows = nn.functional.pad(active, (*[pool.padding[1]] * 2, *[pool.padding[0]] * 2), value=-math.inf)
    windows = windows.unfold(2, pool.size[0], pool.stride[0]).unfold(3, pool.size[1], pool.stride[1]).flatten(-2)
    if windows.shape[-1] == 1:
        return False
    first, second = windows.topk(2).values.unbind(-1)
    return ((first - second < near) & (first != 0)).any().item()


def allowed(case, tensors, truth):
    """How far float32 may be from the truth, by name.

    To the size of a result comes that of the terms it is a sum of, which may cancel, as in the gradient of a bias in
    front of a batch norm, which is zero; and to the rounding of the terms that of what they were normalized by.
    """
    _, y, factor, gamma = before_activation(case, tensors)
    largest, factor = y.abs().max().item(), factor.max().item()
    if case.settings.norm == "none":
        factor = condition = 1.0
    else:
        condition = 1.0 + factor * largest
        factor *= gamma.max().item()
    pool = case.settings.pool
    overlap = math.prod(-(-size // step) for size, step in zip(pool.size, pool.stride, strict=True)) if pool else 1
    dz = 2.0 * overlap * (2.0 if case.mask else 1.0)
    dy = dz * factor * condition if case.settings.norm != "none" else dz
    elements = math.sqrt(y.numel() / y.shape[1])
    weight = case.weight or (1,)
    scale = {
        "out": max(1.0, factor * largest),
        "mean": largest,
        "var": largest**2,
        "dx": dy
        * (math.sqrt(math.prod(weight) / weight[1]) * tensors["weight"].abs().max().item() if case.weight else 1),
        "dweight": dy * elements * 2.0,
        "dbias": dy * elements,
        "dgamma": dz * elements * condition,
        "dbeta": dz * elements * condition,
        "dresidual": dz * condition,
    }
    return {name: 2e-6 * (scale[name] + value.abs().max().item()) for name, value in truth.items()}

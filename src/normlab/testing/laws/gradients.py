"""The derivatives, against finite differences and against the exact relations between them."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from normlab.testing.compare import Broken, describe, same
from normlab.testing.kinds import ALL, DIVIDED_BY_RMS, STANDARDIZED
from normlab.testing.law import law
from normlab.testing.laws.moments import VISIBLE
from normlab.testing.subject import DoesNotApply, Subject, eps_of, needs, run

DIFFERENTIABLE = ALL - {"rank", "renorm", "noisy-normal"}
"""Where the gradient is that of the values: a rank's would be 0; renorm and noisy-normal have constants in theirs."""


@law("gradcheck at eps in {0, 1e-5, 0.1}", "rtol 1e-5, float64", DIFFERENTIABLE)
def first_derivative(subject: Subject) -> None:
    """The gradient is that of finite differences."""
    _check(subject, "gradcheck", second=False)


@law("gradgradcheck at eps in {0, 1e-5, 0.1}", "rtol 1e-5, float64", DIFFERENTIABLE)
def second_derivative(subject: Subject) -> None:
    """So is the gradient of the gradient."""
    _check(subject, "gradgradcheck", second=True)


@law("<w_c, dL/dw_c> = eps / (var_c + eps) gamma_c dL/dgamma_c", "8 u k norms", frozenset({"batch"}))
def radial_gradient(subject: Subject) -> None:
    """The weights before the layer have no gradient along themselves but what eps lets through."""
    layer, z = subject.make(drawn=True, prefer=VISIBLE), subject.draw(seed=1)
    needs(layer, "weight")
    gamma: Tensor = layer.weight  # type: ignore[assignment]
    weights = torch.linspace(-1, 1, z.shape[1] ** 2, dtype=z.dtype).reshape(z.shape[1], -1).add(0.1)
    weights = (weights + torch.eye(z.shape[1], dtype=z.dtype)).requires_grad_()
    h = torch.einsum("cd,nd...->nc...", weights, z)
    y = run(layer, h)
    dw, dgamma = torch.autograd.grad(y, (weights, gamma), _along(y), allow_unused=True)
    dw, dgamma = (torch.zeros_like(to) if g is None else g for g, to in ((dw, weights), (dgamma, gamma)))
    spread = subject.spread(h.detach(), layer)[:, 0]
    eps = eps_of(layer)
    sizes = (dw.norm() * weights.norm()).item()
    within = 8 * subject.u * subject.condition(h.detach(), layer) * max(1.0, sizes)
    same("<w, dL/dw>", (weights * dw).sum(1), eps / (spread + eps) * gamma * dgamma, within, h)


@law("sum dh xh = (1/s) (eps / (var + eps)) sum g xh at gamma = 1", "8 u k norms", STANDARDIZED | DIVIDED_BY_RMS)
def gradient_along_the_output(subject: Subject) -> None:
    """The gradient has no part along the normalized values but what eps lets through."""
    layer, x = subject.make(prefer=VISIBLE), subject.draw().requires_grad_()
    y = run(layer, x)
    along = _along(y)
    (dx,) = torch.autograd.grad(y, x, along) if y.requires_grad else (torch.zeros_like(x),)
    eps, spread = eps_of(layer), subject.spread(x.detach(), layer)
    inverse = (spread + eps).rsqrt()
    xh = subject.rows(y.detach(), layer)

    def along_xh(gradient: Tensor) -> Tensor:
        return (subject.rows(gradient, layer) * xh).sum(1, keepdim=True)

    norms = (xh.norm() * along.norm()).item()
    within = 8 * subject.u * subject.condition(x.detach(), layer) * max(1.0, norms)
    same("sum dh xh", along_xh(dx), inverse * eps / (spread + eps) * along_xh(along), within, x)


def _check(subject: Subject, name: str, *, second: bool) -> None:
    if subject.dtype != torch.float64:
        raise DoesNotApply("finite differences are taken in float64")
    makers: dict[str, Callable[[], nn.Module]] = {
        "its own eps": lambda: subject.make(drawn=True),
        "eps = 0": lambda: subject.without_eps(drawn=True),
        "eps = 0.1": lambda: subject.make(drawn=True, eps=0.1),
    }
    check = functools.partial(gradgradcheck, fast_mode=True) if second else gradcheck
    for which, make in makers.items():
        try:
            layer = make()
        except DoesNotApply:
            continue
        # Four positions say what eight would: each element takes two passes, and is a row of the matrix compared.
        sizes = tuple(min(size, 2 if axis < 2 else 1) for axis, size in enumerate(subject.positions))
        x = subject.draw(rows=3, spatial=sizes).requires_grad_()
        try:
            check(functools.partial(run, layer), (x,), rtol=1e-5, atol=1e-6)
        except Exception as error:
            mismatch = " ".join(str(error).split())[:300]
            raise Broken(f"{name} at {which}", describe([x.detach()]), "finite differences", mismatch) from error


def _along(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)

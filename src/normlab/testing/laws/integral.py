"""Laws of transforms that make a distribution: uniform by its own distribution function, Gaussian by a power."""

import math

import torch
from torch import Tensor

from normlab.testing.compare import Broken, describe, same, same_map
from normlab.testing.kinds import DIVIDED_BY_RMS
from normlab.testing.law import law
from normlab.testing.subject import Subject, eps_of, run

MONOTONE = frozenset(
    {"batch", "mean-only", "variance-only", "ghost", "renorm", "frozen", "instance", "response"}
    | {"tanh", "uniform", "rank", "normal"}
)


@law(
    "sorted y = (i - 1/2) / N: its Kolmogorov-Smirnov distance to uniform is 1 / (2N)",
    "4 u",
    frozenset({"rank"}),
)
def ranks_are_uniform(subject: Subject) -> None:
    """Ranks spread each channel evenly over (0, 1), as evenly as N values can be; the stand-in gradient rises."""
    layer, x = subject.make(), subject.draw()
    found = subject.rows(run(layer, x), layer)
    even = (torch.arange(found.shape[1], dtype=x.dtype) + 0.5) / found.shape[1]
    same("sorted y", found.sort(1).values, even.expand_as(found), 4 * subject.u, x)
    _rises(subject, lambda x: run(layer, x), x)


@law("y(f(h)) = y(h), f strictly increasing, without ties", "4 u", frozenset({"rank"}))
def ranks_see_only_the_order(subject: Subject) -> None:
    """A strictly increasing map before the layer changes no rank; the stand-in gradient still rises."""
    layer, x = subject.make(), subject.draw()
    for name, f in (("exp h", torch.exp), ("h^3 + h", lambda x: x**3 + x)):
        same(f"y of {name}", run(layer, f(x)), run(layer, x), 4 * subject.u, x)
        _rises(subject, lambda x, f=f: run(layer, f(x)), x)


@law("sqrt(N) KS(y, uniform) <= 1.2 for Gaussian h", "as stated", frozenset({"uniform"}))
def gaussian_becomes_uniform(subject: Subject) -> None:
    """The Gaussian distribution function makes Gaussian data uniform; its gradient is the density's, and positive."""
    layer, x = subject.make(), subject.draw(rows=257, spatial=subject.single)
    found = subject.rows(run(layer, x), layer).double().sort(1).values
    n = found.shape[1]
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((found - steps[:-1]).abs().max(), (steps[1:] - found).abs().max()).item()
    if not distance * math.sqrt(n) <= 1.2:
        raise Broken("sqrt(N) KS of y", describe([x]), "at most 1.2", f"{distance * math.sqrt(n):.3g}")
    _rises(subject, lambda x: run(layer, x), x)


@law("y = (1 + erf(xh / sqrt 2)) / 2", "100 u k", frozenset({"uniform"}))
def uniform_is_the_gaussian_integral(subject: Subject) -> None:
    """It is the Gaussian distribution function of what batch normalization gives."""
    layer, x = subject.make(), subject.draw()
    within = 100 * subject.u * subject.condition(x, layer)
    same_map(
        "y",
        lambda x: run(layer, x),
        lambda x: 0.5 * (1 + torch.erf(subject.plain(x, layer) / math.sqrt(2))),
        within,
        x,
    )


@law("h and -h in one batch: y = BN(h)", "1e-4 float32, 1e-10 float64", frozenset({"normal"}))
def symmetric_batches_are_only_standardized(subject: Subject) -> None:
    """A symmetric batch is best left alone: its power is lambda = 1, which is the identity."""
    layer, x = subject.make(), subject.draw(mean=0.0)

    def plain(x: Tensor) -> Tensor:
        return subject.plain(torch.cat([x, -x]), layer)

    within = subject.exact(1e-10, 1e-4)
    eps_of(layer)
    same_map("y of h and -h", lambda x: run(layer, torch.cat([x, -x])), plain, within, x)


@law("h_i < h_j: y_i <= y_j in each channel, gamma > 0", "exact", MONOTONE)
def order_is_kept(subject: Subject) -> None:
    """Within what shares statistics the order stays, and a value that rises lifts its own output."""
    layer, x = subject.make(), subject.draw(rows=12)
    if subject.kind == "ghost":
        x = x[:2]
    rows, found = subject.rows(x, layer), subject.rows(run(layer, x), layer)
    steps = found.gather(1, rows.argsort(1)).diff(dim=1)
    if not bool((steps >= -8 * subject.u).all()):
        raise Broken("y in the order of h", describe([x]), "no step down", f"one of {steps.min():.3g}")
    if subject.kind not in DIVIDED_BY_RMS:
        _rises(subject, lambda x: run(layer, x), x)


def _rises(subject: Subject, f: object, x: Tensor) -> None:
    """Broken unless the gradient of the value nearest its channel's mean, by that value, is positive."""
    assert callable(f)
    leaf = x.detach().clone().requires_grad_()
    y = f(leaf)
    rows = x.movedim(1, 0).flatten(1)
    nearest = (rows - rows.mean(1, keepdim=True)).abs().argmin(1)
    numbers = torch.arange(x.numel()).reshape(x.shape).movedim(1, 0).flatten(1)
    for channel, place in enumerate(nearest.tolist()):
        at = int(numbers[channel, place])
        slope = 0.0
        if y.requires_grad:
            slope = torch.autograd.grad(y.flatten()[at], leaf, retain_graph=True)[0].flatten()[at].item()
        if not slope > 0:
            raise Broken("dy_i / dh_i in the middle of a channel", describe([x]), "more than 0", f"{slope:.3g}")

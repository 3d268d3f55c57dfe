"""What normalized values have: their mean, their spread, their bound, and what becomes of constants."""

import torch
from torch import Tensor

from normlab.testing.compare import same, same_map
from normlab.testing.kinds import DIVIDED_BY_RMS, STANDARDIZED, WHITENED
from normlab.testing.law import law
from normlab.testing.subject import DoesNotApply, Subject, eps_of, run, step

VISIBLE = {"eps": 0.1}
"""An eps that a law about it can tell from none."""


@law("mean xh = 0", "8 u k", STANDARDIZED | WHITENED | {"mean-only", "ghost"})
def zero_mean(subject: Subject) -> None:
    """What is normalized by a mean has mean 0."""
    layer, x = subject.make(), subject.draw()
    within = 8 * subject.u * subject.condition(x, layer)
    same_map(
        "mean of the normalized values",
        lambda x: subject.rows(run(layer, x), layer).mean(1),
        lambda x: torch.zeros_like(subject.rows(x, layer)[:, 0]),
        within,
        x,
    )


@law(
    "var xh = var / (var + eps); for rms mean xh^2 = ms / (ms + eps)",
    "8 u k",
    STANDARDIZED | DIVIDED_BY_RMS | {"variance-only"},
)
def unit_spread(subject: Subject) -> None:
    """The normalized values have the spread var / (var + eps), which is not 1."""
    layer, x = subject.make(prefer=VISIBLE), subject.draw()
    eps = eps_of(layer)

    def expected(x: Tensor) -> Tensor:
        spread = subject.spread(x, layer)
        return spread / (spread + eps)

    within = 8 * subject.u * subject.condition(x, layer)
    same_map("spread of the normalized values", lambda x: subject.spread(run(layer, x), layer), expected, within, x)


@law("|xh| <= sqrt(N - 1), where one value stands out alone", "8 u k", STANDARDIZED)
def bounded_by_the_count(subject: Subject) -> None:
    """One value of N that stands out alone reaches the largest normalized value there is; there the gradient is 0."""
    layer, x = subject.make(), subject.draw()
    numbers = torch.arange(x.numel(), dtype=torch.float64).reshape(x.shape)
    first = subject.rows(numbers, layer)[:, 0].long()
    x = torch.zeros_like(x).flatten().index_fill(0, first, 100.0).reshape(x.shape)
    eps, count = eps_of(layer), subject.rows(x, layer).shape[1]

    def bound(x: Tensor) -> Tensor:
        var = subject.spread(x, layer)[:, 0]
        return (count - 1) ** 0.5 * (var / (var + eps)).sqrt()

    within = 8 * subject.u * subject.condition(x, layer)
    same_map("the value that stands out", lambda x: run(layer, x).flatten()[first], bound, within, x)


@law("y = beta for N = 1, or an error", "8 u", frozenset({"batch", "instance"}))
def one_value_gives_beta(subject: Subject) -> None:
    """A single value has no variance: it is refused, or gives beta with gradient 0, and never NaN."""
    layer = subject.make(drawn=True)
    x = subject.draw(rows=1, spatial=subject.single)
    bias = getattr(layer, "bias", None)
    beta = torch.zeros_like(x) if bias is None else bias.detach().reshape(x.shape)
    try:
        run(layer, x)
    except ValueError as error:
        raise DoesNotApply("it refuses a single value, as torch does") from error
    same_map("y of a single value", lambda x: run(layer, x), lambda x: beta, 8 * subject.u, x)


@law("y = beta for h = c", "8 u k, k = 1 + |c| / sqrt(eps)", STANDARDIZED)
def constant_gives_beta(subject: Subject) -> None:
    """What is constant becomes beta, with the gradient of the formula, which is finite."""
    layer = subject.make()
    if eps_of(layer) == 0:
        raise DoesNotApply("its eps is 0")
    x = torch.full_like(subject.draw(), 0.7)
    within = 8 * subject.u * subject.condition(x, layer)
    same_map("y of constants", lambda x: run(layer, x), lambda x: subject.plain(x, layer), within, x)


@law("y = (h - mu) / s at mu / sigma = 1e4", "8 u k; the running variance 1e-4", STANDARDIZED)
def far_from_zero(subject: Subject) -> None:
    """A mean of ten thousand deviations costs four digits and no more: E[x^2] - E[x]^2 would lose all of them."""
    layer = subject.make(prefer={"momentum": 1.0})
    x = subject.draw(mean=0.0) + 1e4
    exact = x.double()
    within = min(0.05, 8 * subject.u * subject.condition(x, layer))
    same_map(
        "y far from zero",
        lambda x: run(layer, x),
        lambda x: subject.plain(exact + (x - x.detach()), layer),
        within,
        x,
    )
    step(layer, x)
    stored = getattr(layer, "running_var", None)
    if isinstance(stored, Tensor) and getattr(layer, "momentum", None) == 1.0:
        same("the running variance", stored, subject.rows(exact, layer).var(1), 1e-4, x)

"""What a normalization does not see: a constant that is added, a scale, the order of the examples."""

import torch
from torch import Tensor

from normlab.testing.compare import same_map
from normlab.testing.kinds import ALL, DIVIDED_BY_RMS, RANDOM, STANDARDIZED, STATISTICS_OF_THE_BATCH, WHITENED
from normlab.testing.law import law
from normlab.testing.laws.moments import VISIBLE
from normlab.testing.subject import Subject, eps_of, run

SHIFTLESS = STANDARDIZED | WHITENED | {"ghost", "mean-only", "noisy", "uniform", "rank", "normal", "noisy-normal"}
"""Kinds that subtract a mean, or as good as do."""

DIVIDED = STANDARDIZED | DIVIDED_BY_RMS | WHITENED | {"ghost", "noisy", "variance-only", "uniform"}
"""Kinds that divide by a deviation, to whose square eps is added."""


@law(
    "BN(h + c) = BN(h)", "8 u (1 + (|mu| + |c|) / sigma), 100 times that for whitening and uniform values", SHIFTLESS
)
def shift_invariance(subject: Subject) -> None:
    """A constant that is added changes nothing; one for each channel, for kinds that normalize channels."""
    layer, x = subject.make(), subject.draw()
    c = torch.full((1, x.shape[1], *[1] * (x.dim() - 2)), 2.0, dtype=x.dtype)
    if subject.kind not in ("layer", "group"):
        c = c * torch.linspace(-1, 1, x.shape[1], dtype=x.dtype).reshape(c.shape)
    within = 8 * subject.u * subject.condition(x.abs() + c.abs(), layer) * _conditioning(subject)
    same_map("y of h + c", lambda x: run(layer, x + c), lambda x: run(layer, x), within, x)


@law("sum over the reduced elements of dh = 0", "8 u k sum |dh|", SHIFTLESS - {"rank"})
def bias_has_no_gradient(subject: Subject) -> None:
    """A bias before the layer gets the gradient 0 and moves nothing: the mean absorbs it."""
    layer, x = subject.make(drawn=True), subject.draw()
    shape = subject.rows(x, layer).shape[0]
    bias = torch.zeros(shape, dtype=x.dtype)
    if subject.kind in ("layer", "group"):
        bias = bias.reshape(x.shape[0], -1)

    def biased(bias: Tensor) -> Tensor:
        each = x.shape[1] // bias.shape[1] if bias.dim() == 2 else 1
        per_example = bias.repeat_interleave(each, 1) if bias.dim() == 2 else bias.reshape(-1, x.shape[1])
        return run(layer, x + per_example.reshape(*per_example.shape, *[1] * (x.dim() - 2)))

    within = 8 * subject.u * subject.condition(x, layer) * x.shape[0] * _conditioning(subject)
    fixed = run(layer, x).detach()
    same_map("y with a bias before", biased, lambda bias: fixed, within, bias)


@law(
    "y(a h) = sign(a) y(h) sqrt((var + eps) / (var + eps / a^2)) at beta = 0",
    "1e-6 float32, 1e-14 float64, times k",
    STANDARDIZED | DIVIDED_BY_RMS,
)
def scale_law(subject: Subject) -> None:
    """A scale changes the output only through eps, and its sign."""
    layer, x = subject.make(prefer=VISIBLE), subject.draw()
    eps = eps_of(layer)
    within = subject.exact(1e-14, 1e-6) * subject.condition(x, layer)
    for a in (3.0, -0.5):

        def scaled(x: Tensor, a: float = a) -> Tensor:
            spread = subject.spread(x, layer)
            ratio = ((spread + eps) / (spread + eps / a**2)).sqrt()
            rows = subject.rows(run(layer, x), layer)
            return ratio * rows if a > 0 else -ratio * rows

        same_map(f"y of {a} h", lambda x, a=a: subject.rows(run(layer, a * x), layer), scaled, within, x)


@law("y(a h; a^2 eps) = y(h; eps), a > 0", "1e-5 float32, 1e-12 float64, times k", DIVIDED)
def eps_is_a_variance(subject: Subject) -> None:
    """As eps has the unit of a variance, input and eps scaled together give the same output."""
    layer, x = subject.make(eps=0.1), subject.draw()
    scaled = subject.make(eps=0.4)
    within = subject.exact(1e-12, 1e-5) * subject.condition(x, layer)
    same_map("y of 2 h at 4 eps", lambda x: run(scaled, 2 * x), lambda x: run(layer, x), within, x)


@law("eps = 0, a > 0: y(aW) = y(W), grad at aW = grad at W / a", "1e-5 float32, 1e-12 float64, times k", DIVIDED)
def gradient_falls_as_weights_grow(subject: Subject) -> None:
    """At eps = 0 the weights before the layer have no scale, and a gradient that falls as they grow."""
    layer, z = subject.without_eps(), subject.draw(seed=1)
    weights = _weights(z)
    within = subject.exact(1e-12, 1e-5) * subject.condition(_linear(weights, z), layer)
    same_map(
        "y of 4 W", lambda w: run(layer, _linear(4 * w, z)), lambda w: run(layer, _linear(w, z)), within, weights
    )


@law("y(P h) = P y(h)", "8 u k", ALL - RANDOM - {"ghost", "any"})
def examples_have_no_order(subject: Subject) -> None:
    """The outputs follow the examples when they change places."""
    layer, x = subject.make(drawn=True), subject.draw()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    within = 8 * subject.u * subject.condition(x, layer) * _conditioning(subject)
    same_map("y of permuted examples", lambda x: run(layer, x[order]), lambda x: run(layer, x)[order], within, x)


@law(
    "y([h; h]) = [y(h); y(h)]", "8 u k", (STATISTICS_OF_THE_BATCH - RANDOM - {"ghost", "rank"}) | {"frozen", "layer"}
)
def duplicates_change_nothing(subject: Subject) -> None:
    """A batch that holds every example twice has the same statistics."""
    layer, twice, x = subject.make(), subject.make(), subject.draw()
    within = 8 * subject.u * subject.condition(x, layer) * _conditioning(subject)
    same_map(
        "y of the doubled batch",
        lambda x: run(twice, torch.cat([x, x])),
        lambda x: torch.cat([run(layer, x)] * 2),
        within,
        x,
    )


@law(
    "y(h) + y(-h) = constant",
    "8 u k",
    STANDARDIZED
    | WHITENED
    | {"ghost", "mean-only", "variance-only", "noisy", "frozen", "rms", "tanh", "uniform", "normal"},
)
def odd_about_a_constant(subject: Subject) -> None:
    """Mirrored inputs give mirrored outputs; noise, the same twice, knows nothing of the input."""
    layer, x, other = subject.make(drawn=True), subject.draw(), subject.draw(seed=1).flip(0)

    def both(x: Tensor) -> Tensor:
        return run(layer, x) + run(layer, -x)

    fixed = both(other).detach()
    within = 8 * subject.u * max(subject.condition(each, layer) for each in (x, other)) * _conditioning(subject)
    same_map("y(h) + y(-h)", both, lambda x: fixed, within, x)


@law("y(h + z) - y(z) = y(h) - y(0)", "8 u k", frozenset({"mean-only", "frozen"}))
def affine_in_its_input(subject: Subject) -> None:
    """Without a division by the batch's deviation the layer is an affine map."""
    layer, x, z = subject.make(drawn=True), subject.draw(), subject.draw(seed=1)
    within = 8 * subject.u * max(subject.condition(each, layer) for each in (x, z))
    same_map(
        "y(h + z) - y(z)",
        lambda x, z: run(layer, x + z) - run(layer, z),
        lambda x, z: run(layer, x) - run(layer, torch.zeros_like(x)),
        within,
        x,
        z,
    )


def _conditioning(subject: Subject) -> float:
    """What an inverse root of a covariance, or a search for a power, adds to the rounding."""
    return 100.0 if subject.kind in WHITENED | {"uniform", "normal"} else 1.0


def _weights(z: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.eye(z.shape[1], dtype=z.dtype) + 0.3 * torch.randn(
        z.shape[1], z.shape[1], generator=generator, dtype=torch.float64
    ).to(z)


def _linear(weights: Tensor, z: Tensor) -> Tensor:
    """A linear layer, or a convolution with one tap: h of (C, D) weights and z (N, D, *spatial)."""
    return torch.einsum("cd,nd...->nc...", weights, z)

"""Laws of whitening: the covariance that comes out, what it commutes with, and where it must not break."""

import torch
from torch import Tensor

from normlab.testing.compare import same_map
from normlab.testing.kinds import WHITENED
from normlab.testing.law import law
from normlab.testing.laws.moments import VISIBLE
from normlab.testing.subject import CHANNELS, Subject, eps_of, needs, run

EXACTLY = WHITENED - {"newton-schulz"}
SYMMETRIC = frozenset({"zca", "newton-schulz"})


@law(
    "cov y = S (S + eps I)^-1 for zca, L (L + eps I)^-1 for pca (L the eigenvalues), I - eps C^-1 C^-T for cholesky "
    "(C C^T = S + eps I)",
    "1e-10 float64, 1e-4 float32",
    EXACTLY,
)
def whitened_covariance(subject: Subject) -> None:
    """What comes out has the identity for its covariance, but for what eps takes away."""
    layer, x = subject.make(prefer=VISIBLE), _many(subject)
    eye = torch.eye(CHANNELS, dtype=x.dtype)
    eps = eps_of(layer)

    def expected(x: Tensor) -> Tensor:
        s = covariance(x)
        if subject.kind == "pca":
            values = torch.linalg.eigvalsh(s)
            return torch.diag(values / (values + eps))
        if subject.kind == "cholesky":
            inverse = torch.linalg.inv(torch.linalg.cholesky(s + eps * eye))
            return eye - eps * inverse @ inverse.T
        return s @ torch.linalg.inv(s + eps * eye)

    def found(x: Tensor) -> Tensor:
        s = covariance(run(layer, x))
        if subject.kind == "pca":  # in whatever order it has its axes
            order = s.diagonal().argsort()
            return s[order][:, order]
        return s

    same_map("the covariance of y", found, expected, subject.exact(1e-10, 1e-4), x)


@law("cov(y, h) = cov(y, h)^T", "1e-10 float64, 1e-4 float32", SYMMETRIC)
def zca_is_symmetric(subject: Subject) -> None:
    """The matrix is symmetric: of all that whiten it moves the data least."""
    layer, x = subject.make(prefer=VISIBLE), _many(subject)

    def skew(x: Tensor) -> Tensor:
        y, h = _centered(run(layer, x)), _centered(x)
        across = y @ h.T / h.shape[1]
        return across - across.T

    same_map("cov(y, h) - cov(y, h)^T", skew, lambda x: skew(x) * 0, subject.exact(1e-10, 1e-4), x)


@law("y(Q h) = Q y(h), Q orthogonal", "1e-10 float64, 1e-4 float32", SYMMETRIC)
def zca_turns_with_its_input(subject: Subject) -> None:
    """It has no axes of its own: turned channels come out as they would have, turned."""
    layer, x = subject.make(prefer=VISIBLE), _many(subject)
    generator = torch.Generator().manual_seed(2)
    q = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator, dtype=torch.float64))[0].to(x)

    def turn(x: Tensor) -> Tensor:
        return torch.einsum("cd,nd...->nc...", q, x)

    within = subject.exact(1e-10, 1e-4)
    same_map("y of turned channels", lambda x: run(layer, turn(x)), lambda x: turn(run(layer, x)), within, x)


@law("group_size = 1: y = BN(h), up to sign for pca", "1e-10 float64, 1e-4 float32", EXACTLY)
def groups_of_one_are_batch(subject: Subject) -> None:
    """Whitening each channel by itself is batch normalization."""
    layer, x = subject.make(group_size=1, prefer=VISIBLE), _many(subject)

    def found(x: Tensor) -> Tensor:
        y = run(layer, x)
        return y * (y * _centered_as(x)).sum([0, *range(2, x.dim())], keepdim=True).sign().detach()

    same_map("y against batch", found, lambda x: subject.plain(x, layer), subject.exact(1e-10, 1e-4), x)


@law(
    "p <- 1.5 p - .5 p^3 (l + eps) / tr(S + eps I), from p = 1: cov y has eigenvalues p^2 l / tr(S + eps I)",
    "1e-8 float64, 1e-4 float32",
    frozenset({"newton-schulz"}),
)
def newton_schulz_steps(subject: Subject) -> None:
    """Each eigenvalue goes its way to 1 by itself, by the iteration's own steps."""
    layer, x = subject.make(prefer=VISIBLE), _many(subject)
    needs(layer, "iterations")
    steps, eps = int(layer.iterations), eps_of(layer)  # type: ignore[arg-type]

    def expected(x: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(covariance(x))
        trace = (values + eps).sum()
        p = torch.ones_like(values)
        for _ in range(steps):
            p = 1.5 * p - 0.5 * p**3 * (values + eps) / trace
        return (p**2 * values / trace).sort().values

    def found(x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(covariance(run(layer, x)))

    same_map("the eigenvalues of cov y", found, expected, subject.exact(1e-8, 1e-4), x)


@law("N <= C, or equal channels: y and dh are finite", "exact", WHITENED)
def singular_batches_are_finite(subject: Subject) -> None:
    """A covariance without an inverse, or with equal eigenvalues, gives no NaN, forward or backward."""
    layer = subject.make()
    few = subject.draw(rows=2, spatial=subject.single)
    equal = subject.draw()[:, :1].expand(-1, CHANNELS, *subject.spatial).clone()
    constant = torch.full_like(subject.draw(), 0.7)
    for what, x in (("fewer examples than channels", few), ("equal channels", equal), ("constants", constant)):

        def told(x: Tensor, y: Tensor | None = None) -> Tensor:
            y = run(layer, x)
            return torch.where(y.isfinite(), 0 * y, torch.nan)

        same_map(f"y - y of {what}", told, torch.zeros_like, 0.0, x)


def covariance(x: Tensor) -> Tensor:
    """Biased, of the channels: (C, C)."""
    h = _centered(x)
    return h @ h.T / h.shape[1]


def _centered(x: Tensor) -> Tensor:
    h = x.movedim(1, 0).flatten(1)
    return h - h.mean(1, keepdim=True)


def _centered_as(x: Tensor) -> Tensor:
    return x - x.mean([0, *range(2, x.dim())], keepdim=True)


def _many(subject: Subject) -> Tensor:
    """Enough values for a covariance of full rank whatever the input's form."""
    return subject.draw(rows=24)

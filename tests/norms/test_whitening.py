"""Whitening against plain formulas in float64: its laws, its derivatives, and what a singular covariance does."""

import functools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError
from normlab.functional import batch_norm, cholesky, newton_schulz, pca, whiten, zca

METHODS = [zca, pca, cholesky, newton_schulz]
NAMES = {"zca": zca, "pca": pca, "cholesky": cholesky, "newton-schulz": newton_schulz}
EPS = [1e-5, 0.1]
MANY = functools.partial(newton_schulz, iterations=40)


def draw(n=40, channels=6, seed=0, spatial=()):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, *spatial, generator=generator, dtype=torch.float64)
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    return torch.einsum("nc...,dc->nd...", x, mixing) + torch.arange(channels).view(1, -1, *[1] * len(spatial))


def rows(x):
    """(N, C, *spatial) as (M, C)."""
    return x.movedim(1, -1).flatten(0, -2)


def covariance(x):
    """Of the rows, biased, by the definition."""
    x = rows(x)
    centered = x - x.mean(0)
    return torch.stack([(a * b).mean() for a in centered.mT for b in centered.mT]).view(x.shape[1], -1)


def naive(x, name, eps):
    """y by a decomposition of S + eps I that torch differentiates, for a single group."""
    s = covariance(x) + eps * torch.eye(x.shape[1], dtype=x.dtype)
    if name == "cholesky":
        w = torch.linalg.inv(torch.linalg.cholesky(s))
    elif name == "newton-schulz":
        trace = s.trace()
        w = torch.eye(len(s), dtype=s.dtype)
        for _ in range(5):
            w = 1.5 * w - 0.5 * w @ w @ w @ s / trace
        w = w / trace.sqrt()
    else:
        values, vectors = torch.linalg.eigh(s)
        axes = (vectors / values.sqrt()).mT.flip(0)
        w = axes if name == "pca" else vectors @ axes.flip(0)
    centered = rows(x) - rows(x).mean(0)
    return (centered @ w.mT).view(x.movedim(1, -1).shape).movedim(-1, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("spatial", [(), (3,), (2, 3)])
def test_training_agrees_with_the_naive_twin(name, eps, spatial):
    x = draw(spatial=spatial).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    y, *_ = whiten(x, NAMES[name], training=True, eps=eps)
    expected = naive(twin, name, eps)
    assert_close(y, expected, scale=1e3, what="y")
    g = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    (found,), (wanted,) = torch.autograd.grad(y, x, g), torch.autograd.grad(expected, twin, g)
    assert_close(found, wanted, scale=1e3, what="gradient")


@pytest.mark.parametrize("method", [zca, pca, cholesky])
@pytest.mark.parametrize("eps", EPS)
def test_output_covariance_is_the_identity_but_for_eps(method, eps):
    x = draw()
    y, *_ = whiten(x, method, training=True, eps=eps)
    s, identity = covariance(x), torch.eye(6, dtype=x.dtype)
    values = torch.linalg.eigvalsh(s).flip(0)
    if method is zca:
        expected = s @ torch.linalg.inv(s + eps * identity)
    elif method is pca:
        expected = torch.diag(values / (values + eps))
    else:
        inverse = torch.linalg.inv(torch.linalg.cholesky(s + eps * identity))
        expected = identity - eps * inverse @ inverse.mT
    torch.testing.assert_close(covariance(y), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(y.mean(0), torch.zeros(6, dtype=x.dtype), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS[:3])
def test_groups_of_one_channel_are_batch_normalization(method):
    x = draw(spatial=(3,)).requires_grad_()
    weight, bias, mean, var = torch.rand(4, 6, dtype=x.dtype, generator=torch.Generator().manual_seed(1)) + 0.5
    for training in (True, False):
        y, new_mean, new_cov = whiten(
            x, method, mean, var.view(6, 1, 1), weight, bias, training=training, group_size=1
        )
        expected, wanted_mean, wanted_var = batch_norm(x, mean, var, weight, bias, training=training)
        assert_close(y, expected, scale=10)
        assert_close(new_mean, wanted_mean)
        assert_close(new_cov.flatten(), wanted_var)
        found, wanted = (torch.autograd.grad(each.pow(3).sum(), x)[0] for each in (y, expected))
        assert_close(found, wanted, scale=1e3)


def test_groups_are_whitened_each_by_itself():
    x = draw()
    y, *_ = whiten(x, zca, training=True, group_size=3)
    parts = [whiten(half, zca, training=True)[0] for half in x.split(3, dim=1)]
    assert_close(y, torch.cat(parts, 1), scale=10)


def test_zca_is_symmetric_and_turns_with_the_data():
    x = draw()
    s = covariance(x)[None]
    assert_close(zca(s), zca(s).mT)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=x.dtype, generator=torch.Generator().manual_seed(1))).Q
    y = whiten(x, zca, training=True)[0]
    assert_close(whiten(x @ q, zca, training=True)[0], y @ q, scale=1e3)


def test_cholesky_is_lower_triangular():
    w = cholesky(covariance(draw())[None])
    assert torch.equal(w, w.tril())


@pytest.mark.parametrize("iterations", [0, 1, 5, 9])
def test_newton_schulz_moves_each_eigenvalue_as_it_says(iterations):
    s = covariance(draw())
    values, vectors = torch.linalg.eigh(s)
    p = torch.ones_like(values)
    for _ in range(iterations):
        p = 1.5 * p - 0.5 * p**3 * values / values.sum()
    expected = vectors @ torch.diag(p / values.sum().sqrt()) @ vectors.mT
    torch.testing.assert_close(newton_schulz(s[None], iterations)[0], expected, rtol=1e-8, atol=1e-8)


def test_newton_schulz_becomes_zca_and_stays_there_in_float32():
    """Variances that differ by a factor of a thousand: the uncoupled iteration ends in NaN here."""
    turn = torch.linalg.qr(draw(6, seed=1)).Q
    x = torch.randn(400, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = ((x * torch.logspace(0, -1.5, 6, dtype=x.dtype)) @ turn).float()
    exact = whiten(x.double(), zca, training=True)[0]
    for iterations in (20, 300):
        y = whiten(x, functools.partial(newton_schulz, iterations=iterations), training=True)[0]
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=0.005)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("group_size", "last"), [(None, False), (2, True)])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_derivatives_of_first_and_second_order(method, group_size, last, eps):
    x = draw(4, 4, spatial=(2,))
    x = x.mT.contiguous().mT if last else x
    inputs = [x.requires_grad_(), *torch.randn(2, 4, dtype=x.dtype).unbind()]
    inputs[1:] = [value.requires_grad_() for value in inputs[1:]]

    def function(x, weight, bias):
        return whiten(x, method, None, None, weight, bias, training=True, eps=eps, group_size=group_size)[0]

    assert gradcheck(function, inputs, rtol=1e-5)
    assert gradgradcheck(function, inputs, rtol=1e-5)


def equal_eigenvalues():
    """Rows whose covariance is a multiple of I, exactly."""
    return torch.cat([torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64)])


@pytest.mark.parametrize("method", [zca, cholesky, newton_schulz])
def test_derivatives_at_equal_eigenvalues(method):
    x = equal_eigenvalues().requires_grad_()
    function = lambda x: whiten(x, method, training=True)[0]  # noqa: E731
    assert gradcheck(function, [x], rtol=1e-5)
    assert gradgradcheck(function, [x], rtol=1e-5, atol=1e-4)


def test_pca_at_equal_eigenvalues_has_a_finite_gradient():
    x = equal_eigenvalues().requires_grad_()
    (gradient,) = torch.autograd.grad(whiten(x, pca, training=True)[0].pow(3).sum(), x)
    assert gradient.isfinite().all()


SINGULAR = {
    "constant": lambda n: torch.full((n, 8), 3.3),
    "rank one": lambda n: torch.randn(n, 1) @ torch.randn(1, 8),
    "repeated": lambda n: torch.randn(n, 4).repeat(1, 2),
    "full": lambda n: torch.randn(n, 8),
}


@pytest.mark.parametrize("method", [*METHODS, MANY])
@pytest.mark.parametrize("kind", SINGULAR)
@pytest.mark.parametrize("n", [2, 3, 257])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_a_singular_covariance_gives_no_nan_at_any_scale(method, kind, n, eps):
    torch.manual_seed(0)
    base = SINGULAR[kind](n)
    for scale in (1e-4, 1.0, 1e4):
        for shift in (0.0, 1e4):
            x = (scale * (base + shift)).requires_grad_()
            y = whiten(x, method, training=True, eps=eps)[0]
            (gradient,) = torch.autograd.grad(y.pow(3).sum(), x)
            assert y.isfinite().all()
            assert gradient.isfinite().all()


def test_a_constant_batch_gives_beta_at_eps_zero():
    """Of so many values that their mean, 0.1, is rounded."""
    bias = torch.arange(8.0)
    for method in METHODS:
        y = whiten(torch.full((1000, 8), 0.1), method, bias=bias, training=True, eps=0.0)[0]
        assert torch.equal(y, bias.expand(1000, 8))


@pytest.mark.parametrize("shrinkage", [0.3, 1.0])
def test_shrinkage_moves_the_covariance_towards_a_ball(shrinkage):
    x = draw()
    s = covariance(x)
    shrunk = (1 - shrinkage) * s + shrinkage * s.trace() / 6 * torch.eye(6, dtype=x.dtype)
    y = whiten(x, zca, training=True, eps=0.0, shrinkage=shrinkage)[0]
    assert_close(y, (x - x.mean(0)) @ zca(shrunk[None])[0], scale=100)


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_whitens_by_the_running_covariance(method):
    x, other = draw(), draw(seed=1)
    zeros, identity = torch.zeros(6, dtype=x.dtype), torch.eye(6, dtype=x.dtype)[None]
    _, mean, cov = whiten(x, method, zeros, identity, training=True, momentum=1.0)
    assert_close(mean, x.mean(0))
    assert_close(cov[0], x.mT.cov(), scale=10)
    y, same_mean, same_cov = whiten(other, method, mean, cov, eps=0.1)
    w = method(cov + 0.1 * identity)[0]
    assert_close(y, (other - mean) @ w.mT, scale=100)
    assert torch.equal(same_mean, mean)
    assert torch.equal(same_cov, cov)


def test_nothing_passed_in_changes_and_nothing_returned_has_history():
    given = [
        draw(),
        torch.zeros(6).double(),
        torch.eye(6).double()[None],
        torch.ones(6).double(),
        torch.ones(6).double(),
    ]
    before = [value.clone() for value in given]
    x, mean, cov, weight, bias = (value.requires_grad_() for value in given)
    y, new_mean, new_cov = whiten(x, zca, mean, cov, weight, bias, training=True)
    assert y.requires_grad
    assert not new_mean.requires_grad
    assert not new_cov.requires_grad
    assert all(torch.equal(value, old) for value, old in zip(given, before, strict=True))


def test_one_value_per_channel_gives_beta_and_moves_nothing():
    bias, mean, cov = torch.ones(6).double(), torch.zeros(6).double(), torch.eye(6).double()[None]
    y, new_mean, new_cov = whiten(draw(1), zca, mean, cov, None, bias, training=True)
    assert torch.equal(y, bias[None])
    assert torch.equal(new_mean, mean)
    assert torch.equal(new_cov, cov)


@pytest.mark.parametrize(("asked", "given"), [(None, 12), (64, 12), (5, 4), (4, 4), (1, 1)])
def test_the_group_size_of_a_layer_divides_its_channels(asked, given):
    layer = nn.make_norm("zca", 12, 1, group_size=asked)
    assert layer.group_size == given
    assert layer.running_cov.shape == (12 // given, given, given)
    assert f"group_size={given}" in repr(layer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: newton_schulz(torch.diag(torch.tensor([1.0, 0.0, 0.0]))[None], 300), "makes it diverge"),
        (lambda: newton_schulz(torch.diag(torch.tensor([1.0, -0.9, 1.0]))[None], 1), r"makes it diverge \(2\.\d+"),
        (lambda: newton_schulz(torch.eye(2)[None], -1), "iterations >= 0"),
        (lambda: nn.make_norm("newton-schulz", 4, 1, iterations=-1), "iterations >= 0"),
        (lambda: nn.make_norm("zca", 4, 1, group_size=0), "group_size >= 1"),
        (lambda: nn.make_norm("zca", 4, 1, shrinkage=2.0), "shrinkage in"),
        (lambda: whiten(torch.zeros(3, 4), zca, group_size=3), "divides 4 channels"),
        (lambda: whiten(torch.zeros(3, 4), zca, torch.zeros(4)), "both or neither"),
        (
            lambda: whiten(torch.zeros(3, 4), zca, torch.zeros(4), torch.eye(2)[None]),
            r"running_cov of shape \(1, 4, 4\)",
        ),
    ],
)
def test_mistakes_are_named(make, message, no_type_checks):
    with pytest.raises(NormlabError, match=message):
        make()

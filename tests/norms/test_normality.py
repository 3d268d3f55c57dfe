"""Normality normalization against scipy's power transform, a numerical likelihood, and finite differences."""

import math

import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck, gradgradcheck

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError
from normlab.functional import batch_norm, normality_norm
from normlab.norms.normality import estimate_lambda, yeo_johnson


def draw(shape=(60, 3), seed=0):
    """Skewed to the right, to the left, and not."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    skew = torch.tensor([0.3, -0.3, 0.0], dtype=x.dtype).view(1, 3, *[1] * (len(shape) - 2))
    return x + skew * x.square()


@pytest.mark.parametrize("lmbda", [-1.0, 0.0, 1e-5, 0.7, 1.0, 2.0, 2 - 1e-5, 3.5])
def test_the_transform_is_scipys(lmbda):
    h = torch.linspace(-4, 4, 81, dtype=torch.float64)
    expected = torch.from_numpy(scipy.stats.yeojohnson(h.numpy(), lmbda))
    assert_close(yeo_johnson(h, torch.tensor(lmbda, dtype=h.dtype)), expected, scale=10)
    assert_close(yeo_johnson(h.float(), torch.tensor(lmbda)), expected)


def test_lambda_one_is_the_identity_and_every_lambda_increases():
    h = torch.linspace(-4, 4, 801, dtype=torch.float64)
    assert_close(yeo_johnson(h, torch.ones(())), h)
    for lmbda in (-2.0, 0.0, 0.5, 2.0, 4.0):
        assert (yeo_johnson(h, torch.tensor(lmbda)).diff() > 0).all()


@pytest.mark.parametrize("lmbda", [-1.0, 0.0, 1e-6, 0.7, 1.0, 2.0, 2 + 1e-6, 3.0])
def test_derivatives_of_the_transform_hold_at_its_seams(lmbda):
    h = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=torch.float64).requires_grad_()
    power = torch.tensor(lmbda, dtype=torch.float64).requires_grad_()
    slope, in_power = torch.autograd.grad(yeo_johnson(h, power).sum(), [h, power])
    sign = torch.tensor([-1, -1, 1, 1, 1])
    assert_close(slope, (1 + h.abs()) ** (sign * (power - 1)), scale=10)
    step = 1e-5
    ahead, behind = (yeo_johnson(h, power + s).sum() for s in (step, -step))
    torch.testing.assert_close(in_power, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


def test_lambda_is_a_newton_step_of_the_likelihood():
    h = batch_norm(draw(), None, None, training=True, eps=0)[0]

    def likelihood(lmbda):
        logs = torch.where(h >= 0, 1, -1) * torch.log1p(h.abs())
        return yeo_johnson(h, lmbda).var(0, correction=0).log() / 2 - (lmbda - 1) * logs.mean(0)

    one = torch.ones(3, dtype=h.dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(likelihood(one).sum(), one, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), one)
    assert (curvature > 0).all()
    assert_close(estimate_lambda(h, 0), 1 - slope / curvature, scale=100)
    assert_close(estimate_lambda(h, 1e-2), 1 - slope / (curvature + 0.1), scale=100)
    right, left, straight = estimate_lambda(h, 0)
    assert right < 0.9
    assert left > 1.1
    assert abs(straight - 1) < 0.3


def test_skewness_falls():
    x = draw((4000, 3))
    y = normality_norm(x, training=True)[0]
    before, after = (torch.from_numpy(scipy.stats.skew(each.numpy())).abs() for each in (x, y))
    assert (after[:2] < before[:2] / 2).all()


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_derivatives_of_first_and_second_order(eps):
    inputs = [draw((5, 3, 2)), *torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))]
    inputs = [value.requires_grad_() for value in inputs]

    def function(x, weight, bias):
        return normality_norm(x, None, None, None, weight, bias, training=True, eps=eps)[0]

    assert gradcheck(function, inputs, rtol=1e-5)
    assert gradgradcheck(function, inputs, rtol=1e-5)


@pytest.mark.parametrize("shape", [(60, 3), (7, 3, 4), (5, 3, 4, 2)])
def test_running_statistics_and_evaluation(shape):
    x = draw(shape)
    old = [torch.full((3,), value, dtype=x.dtype) for value in (0.5, 2.0, 0.8)]
    _, mean, var, lmbda = normality_norm(x, *old, training=True, momentum=0.3)
    h, expected_mean, expected_var = batch_norm(x, *old[:2], training=True, momentum=0.3)
    assert_close(mean, expected_mean)
    assert_close(var, expected_var)
    assert_close(lmbda, 0.7 * old[2] + 0.3 * estimate_lambda(h, 1e-5))
    y, *same = normality_norm(x, mean, var, lmbda)
    h = batch_norm(x, mean, var)[0]
    for c in range(3):
        assert_close(y[:, c], torch.from_numpy(scipy.stats.yeojohnson(h[:, c].numpy(), lmbda[c].item())), scale=10)
    assert all(torch.equal(one, two) for one, two in zip(same, (mean, var, lmbda), strict=True))


def test_noise_has_the_size_it_says_in_training_only_and_is_torchs():
    x, weight = draw((20_000, 3)), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    plain = normality_norm(x, None, None, None, weight, training=True)[0]
    torch.manual_seed(0)
    noisy = normality_norm(x, None, None, None, weight, training=True, noise=0.4)[0]
    unscaled = plain / weight
    size = 0.4 * (unscaled - unscaled.mean(0)).abs().mean(0)
    added = (noisy - plain) / weight
    torch.testing.assert_close(added.std(0), size, rtol=0.03, atol=0)
    assert (added.mean(0).abs() < 4 * size / math.sqrt(len(x))).all()
    torch.manual_seed(0)
    assert torch.equal(normality_norm(x, None, None, None, weight, training=True, noise=0.4)[0], noisy)
    assert torch.equal(normality_norm(x, None, None, None, weight, noise=0.4)[0], plain)


def test_the_size_of_the_noise_carries_no_gradient():
    gradients = []
    for noise in (0.0, 0.4):
        x = draw().requires_grad_()
        gradients += torch.autograd.grad(normality_norm(x, training=True, noise=noise)[0], x, torch.cos(x.detach()))
    assert_close(gradients[1], gradients[0])


def test_layers_differ_in_their_noise():
    assert nn.make_norm("normality", 3, 1).noise == 0
    assert nn.make_norm("normality-noise", 3, 1).noise == 0.4
    assert nn.make_norm("normality-noise", 3, 1, noise=0.1).noise == 0.1
    x = draw()
    for options in ({}, {"track_running_stats": False}):
        layer = nn.make_norm("normality-noise", 3, 1, **options).double()
        assert not torch.equal(layer(x), layer(x))
        layer.eval()
        assert torch.equal(layer(x), layer(x))


def test_a_channel_without_spread_has_lambda_one():
    for eps in (0, 1e-5):
        old = [torch.zeros(3), torch.ones(3), torch.zeros(3)]
        y, _, _, lmbda = normality_norm(torch.full((5, 3), 2.0), *old, training=True, momentum=1.0, eps=eps)
        assert torch.equal(y, torch.zeros(5, 3))
        assert torch.equal(lmbda, torch.ones(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.make_norm("normality", 3, 1, noise=-1.0), "noise >= 0"),
        (lambda: normality_norm(draw(), noise=math.inf), "noise >= 0"),
        (lambda: normality_norm(draw(), torch.zeros(3, dtype=torch.float64)), "all or none"),
    ],
)
def test_mistakes_are_named(make, message, no_type_checks):
    with pytest.raises(NormlabError, match=message):
        make()

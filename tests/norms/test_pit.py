"""The probability integral transforms against scipy, and what each promises of uniformity."""

import math

import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck, gradgradcheck

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError
from normlab.functional import batch_norm, gaussian_pit, rank_pit
from normlab.norms.rank_pit import look_up, quantiles


def draw(shape=(50, 3), seed=0):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3


def parameters(c=3, seed=1):
    return torch.randn(4, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()


def kolmogorov_smirnov(u):
    """Distance of the distribution of each channel of u (N, C) to the uniform one, at most."""
    return max(scipy.stats.kstest(channel, "uniform").statistic for channel in u.detach().mT.numpy())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(50, 3), (7, 3, 4), (5, 3, 4, 2)])
def test_gaussian_is_the_normal_distribution_function_of_the_batch_norm(shape, training):
    x = draw(shape)
    weight, bias, mean, var = parameters()
    var = var.abs()
    y, *moved = gaussian_pit(x, mean, var, weight, bias, training=training, momentum=0.3)
    h, *expected = batch_norm(x, mean, var, training=training, momentum=0.3)
    u = torch.from_numpy(scipy.stats.norm.cdf(h.numpy()))
    column = (1, 3, *[1] * (len(shape) - 2))
    assert_close(y, weight.view(column) * u + bias.view(column))
    for actual, wanted in zip(moved, expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("parts", ["", "w", "b", "wb"])
@pytest.mark.parametrize("eps", [0, 0.1])
def test_gaussian_derivatives_of_first_and_second_order(parts, eps):
    weight, bias, *_ = parameters(2)
    inputs = [draw((4, 2, 2)).requires_grad_()]
    inputs += [weight.requires_grad_()] * ("w" in parts) + [bias.requires_grad_()] * ("b" in parts)

    def function(x, *rest):
        given = dict(zip(parts, rest, strict=True))
        return gaussian_pit(x, None, None, given.get("w"), given.get("b"), training=True, eps=eps)[0]

    assert gradcheck(function, inputs, rtol=1e-5)
    assert gradgradcheck(function, inputs, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_gaussian_of_normal_data_is_uniform(seed):
    x = draw((2000, 3), seed)
    u = gaussian_pit(x, training=True)[0]
    assert math.sqrt(2000) * kolmogorov_smirnov(u) <= 1.2
    assert_close(
        gaussian_pit(1e3 * x - 7e3, training=True, eps=0)[0], gaussian_pit(x, training=True, eps=0)[0], scale=100
    )
    assert kolmogorov_smirnov(gaussian_pit(x.exp(), training=True)[0]) > 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_are_as_uniform_as_so_many_values_can_be(dtype):
    x = draw((257, 3)).to(dtype)
    u = rank_pit(x)[0]
    assert torch.equal(u.sort(0).values, ((torch.arange(257, dtype=dtype) + 0.5) / 257)[:, None].expand(257, 3))
    assert abs(kolmogorov_smirnov(u) - 1 / (2 * 257)) < 2 * torch.finfo(dtype).eps
    for increasing in (torch.exp, lambda x: x**3, lambda x: 1e4 * x - 1):
        assert torch.equal(rank_pit(increasing(x))[0], u)


@pytest.mark.parametrize("shape", [(50, 3), (7, 3, 4), (5, 3, 4, 2)])
def test_ranks_and_ties_are_scipys(shape):
    x = draw(shape).clamp(min=3).mul(2).round()
    weight, bias, *_ = parameters()
    y = rank_pit(x, None, weight, bias)[0]
    for c in range(3):
        u = scipy.stats.rankdata(x[:, c].numpy()) - 0.5
        expected = weight[c] * torch.from_numpy(u / u.size).view(x[:, c].shape) + bias[c]
        assert_close(y[:, c], expected)


def test_the_gradient_of_ranks_is_borrowed_from_the_gaussian():
    weight, bias, *_ = parameters()
    results = []
    for function in (
        lambda x: rank_pit(x, None, weight, bias)[0],
        lambda x: gaussian_pit(x, None, None, weight, bias)[0],
    ):
        x = draw().requires_grad_()
        (first,) = torch.autograd.grad(function(x), x, torch.cos(x.detach()), create_graph=True)
        results.append([first, *torch.autograd.grad(first.pow(2).sum(), x)])
    for actual, expected in zip(*results, strict=True):
        assert expected.abs().max() > 0
        assert_close(actual, expected, scale=10)
    assert results[0][0].sum(0).abs().max() < 1e-12


@pytest.mark.parametrize("size", [1, 7, 50, 128])
def test_quantiles_are_hazens(size):
    x = draw()
    levels = (torch.arange(size, dtype=x.dtype) + 0.5) / size
    expected = torch.from_numpy(
        scipy.stats.mstats.mquantiles(x.numpy(), levels.numpy(), alphap=0.5, betap=0.5, axis=0)
    )
    assert_close(quantiles(x.mT.contiguous().sort(1).values, size), expected.mT)


@pytest.mark.parametrize("tied", [False, True])
def test_evaluation_by_the_batchs_own_table_is_training(tied):
    x = draw()
    x = x.clamp(min=3) if tied else x
    table = x.mT.sort(1).values
    y, moved = rank_pit(x, torch.zeros_like(table), training=True, momentum=1.0)
    assert_close(moved, table)
    assert_close(rank_pit(x, table)[0], y)


def test_evaluation_draws_lines_between_quantiles_and_stops_at_the_ends():
    table = torch.tensor([[0.0, 1.0, 3.0, 3.0]])
    x = torch.tensor([-9.0, 0.0, 0.25, 1.0, 2.0, 2.999999, 3.0, 9.0]).requires_grad_()
    u = look_up(x[:, None], table, None, None)[:, 0]
    assert_close(u, torch.tensor([0.125, 0.125, 0.1875, 0.375, 0.5, 0.625, 0.75, 0.75]))
    (gradient,) = torch.autograd.grad(u.sum(), x)
    assert_close(gradient, torch.tensor([0, 0, 0.25, 0, 0.125, 0.125, 0, 0]))
    assert look_up(torch.tensor([[float("nan")]]), table, None, None).isnan().all()


def test_a_trained_table_makes_new_data_of_any_shape_uniform():
    layer = nn.make_norm("rank-pit", 3, 1, momentum=None).double()
    for seed in range(20):
        layer(draw((500, 3), seed).exp())
    u = layer.eval()(draw((2000, 3), 99).exp())
    assert kolmogorov_smirnov((u - layer.bias) / layer.weight) < 0.05
    assert (layer.running_quantiles.diff() > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rank_pit(draw(), torch.zeros(2, 9, dtype=torch.float64)), r"running_quantiles of shape \(3, K\)"),
        (lambda: nn.make_norm("rank-pit", 3, 1, quantiles=0), "quantiles >= 1"),
        (lambda: gaussian_pit(draw(), eps=-1), "eps >= 0"),
    ],
)
def test_mistakes_are_named(make, message, no_type_checks):
    with pytest.raises(NormlabError, match=message):
        make()

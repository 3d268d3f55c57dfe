"""`functional.batch_norm` against a naive twin in float64, and what it promises at the edges."""

import math
import subprocess
import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jacrev, jvp, vmap

from compare import assert_close
from normlab.errors import NormlabError
from normlab.functional import batch_norm

NAN = float("nan")


def naive(x, weight=None, bias=None, eps=1e-5, mask=None):
    """y, mean, unbiased variance of x (N, C, *spatial), channel by channel, differentiable by autograd."""
    mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand_as(x)
    ys, means, variances = [], [], []
    for c in range(x.shape[1]):
        values = x[:, c][mask[:, c]]
        mean = values.sum() / max(len(values), 1)
        squares = ((values - mean) ** 2).sum()
        shifted = squares / max(len(values), 1) + eps
        y = (x[:, c] - mean) * (0 if shifted == 0 else 1 / shifted.sqrt())
        y = y if weight is None else y * weight[c]
        y = y if bias is None else y + bias[c]
        ys.append(torch.where(mask[:, c], y, 0))
        means.append(mean)
        variances.append(squares / max(len(values) - 1, 1))
    return torch.stack(ys, 1), torch.stack(means), torch.stack(variances)


def plain(x):
    return x


def channels_last(x):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x.mT.contiguous().mT


def sliced(x):
    wide = torch.empty(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


SHAPES = [(7, 3), (2, 1), (5, 3, 4), (3, 4, 5, 6), (2, 3, 2, 3, 2), (257, 2, 1, 3)]
LAYOUTS = [plain, channels_last, sliced]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def draw(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(shape, generator=generator, dtype=torch.float64) + 3
    weight, bias, *running = torch.randn(4, shape[1], generator=generator, dtype=torch.float64)
    mask = torch.rand(shape[0], 1, *shape[2:], generator=generator) < 0.6
    mask.reshape(-1)[:2] = True
    return x.to(dtype), weight.to(dtype), bias.to(dtype), [each.to(dtype) for each in running], mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_training_agrees_with_the_naive_twin(shape, layout, dtype, masked):
    x, weight, bias, (mean, var), mask = draw(shape, dtype)
    mask = mask if masked else None
    inputs = [layout(x).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    twins = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    y, new_mean, new_var = batch_norm(
        inputs[0], mean, var, inputs[1], inputs[2], training=True, momentum=0.3, mask=mask
    )
    expected, batch_mean, batch_var = naive(*twins, mask=mask)
    assert y.dtype == dtype
    assert_close(y, expected, what="y")
    assert_close(new_mean, 0.7 * mean.double() + 0.3 * batch_mean, what="running mean")
    assert_close(new_var, 0.7 * var.double() + 0.3 * batch_var, what="running variance", scale=4)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.autograd.grad(y, inputs, g.to(dtype))
    wanted = torch.autograd.grad(expected, twins, g.to(dtype).double())
    for name, actual, twin in zip(("x", "weight", "bias"), found, wanted, strict=True):
        assert actual.dtype == dtype
        assert_close(actual, twin, scale=8, what=f"gradient of {name}")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_is_the_affine_map_of_the_running_statistics(shape, layout, masked):
    x, weight, bias, (mean, var), mask = draw(shape)
    var = var.abs()
    y, same_mean, same_var = batch_norm(layout(x), mean, var, weight, bias, eps=0.1, mask=mask if masked else None)
    column = (1, -1, *[1] * (len(shape) - 2))
    expected = (x - mean.view(column)) / (var.view(column) + 0.1).sqrt() * weight.view(column) + bias.view(column)
    assert_close(y, torch.where(mask, expected, 0) if masked else expected)
    assert torch.equal(same_mean, mean)
    assert torch.equal(same_var, var)


@pytest.mark.parametrize("parts", ["", "w", "b", "wb"])
@pytest.mark.parametrize("eps", [0, 1e-5, 0.1])
@pytest.mark.parametrize("layout", [plain, channels_last])
@pytest.mark.parametrize("masked", [False, True])
def test_derivatives_of_first_and_second_order(parts, eps, layout, masked):
    x, weight, bias, _, mask = draw((4, 2, 3, 2))
    inputs = [layout(x).requires_grad_()]
    inputs += [weight.requires_grad_()] * ("w" in parts) + [bias.requires_grad_()] * ("b" in parts)

    def function(x, *rest):
        given = dict(zip(parts, rest, strict=True))
        return batch_norm(
            x, None, None, given.get("w"), given.get("b"), training=True, eps=eps, mask=mask if masked else None
        )[0]

    assert gradcheck(function, inputs, rtol=1e-5, check_forward_ad=True)
    assert gradgradcheck(function, inputs, rtol=1e-5)


def test_derivatives_of_the_transforms_of_torch_func():
    x, weight, bias, _, _ = draw((6, 2, 3))
    direction = torch.randn_like(x)

    def cubed(x):
        return (batch_norm(x, None, None, weight, bias, training=True)[0] ** 3).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cubed(leaf), leaf, create_graph=True)
    (expected,) = torch.autograd.grad(gradient, leaf, direction)
    assert_close(jvp(grad(cubed), (x,), (direction,))[1], expected, scale=100)
    assert_close(jvp(jacrev(cubed), (x,), (direction,))[1], expected, scale=100)
    # The third derivative along one direction, against a central difference of the second.
    third = jvp(lambda x: jvp(grad(cubed), (x,), (direction,))[1], (x,), (direction,))[1]
    step = 1e-4
    ahead, behind = (jvp(grad(cubed), (x + s * direction,), (direction,))[1] for s in (step, -step))
    torch.testing.assert_close(third, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5)


def test_vmap_is_a_loop():
    x = torch.stack([draw((5, 3, 4), seed=seed)[0] for seed in range(4)])
    _, weight, bias, (mean, var), _ = draw((5, 3, 4))

    def run(x):
        return batch_norm(x, mean, var, weight, bias, training=True)

    for mapped, looped in zip(vmap(run)(x), zip(*map(run, x), strict=True), strict=True):
        assert_close(mapped, torch.stack(looped))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_ten_thousand_sigmas_away_costs_four_digits_and_no_more(layout, dtype):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(64, 3, 24, 24, generator=generator, dtype=torch.float64) + 1e4).to(dtype)
    y, mean, var = batch_norm(
        layout(x), torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype), training=True, momentum=1
    )
    expected, exact_mean, exact_var = naive(x.double())
    torch.testing.assert_close(var.double(), exact_var, rtol=1e-4, atol=0)
    assert_close(mean, exact_mean)
    assert_close(y, expected, scale=1000)


def test_nothing_passed_in_changes_and_nothing_returned_has_history():
    x, weight, bias, (mean, var), _ = draw((5, 3, 4))
    weight.requires_grad_()
    given = [x, weight, bias, mean.requires_grad_(), var.requires_grad_()]
    before = [value.detach().clone() for value in given]
    y, new_mean, new_var = batch_norm(x, mean, var, weight, bias, training=True)
    assert y.requires_grad
    assert not new_mean.requires_grad
    assert not new_var.requires_grad
    assert all(torch.equal(value, old) for value, old in zip(given, before, strict=True))


def test_memory_is_flat_over_a_hundred_steps_with_the_statistics_carried_along():
    """A step's input is 4 MiB: if the statistics kept the graphs, eighty steps would keep 320 MiB."""
    script = """
import resource, torch
from normlab.functional import batch_norm
mean, var = torch.zeros(16), torch.ones(16)
weight = torch.ones(16, requires_grad=True)
def step():
    global mean, var
    x = (torch.randn(64, 16, 32, 32) * weight.view(1, -1, 1, 1))
    y, mean, var = batch_norm(x, mean, var, weight, None, training=True)
    (y * y).mean().backward()
for _ in range(20): step()
early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(80): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 40 * 1024  # KiB


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_that_is_not_finite_moves_no_running_statistic_and_hides_nothing(bad, layout, masked):
    x, _, _, (mean, var), _ = draw((5, 3, 4, 2))
    x[1, 2, 0, 0] = bad
    mask = torch.ones(5, 4, 2, dtype=torch.bool) if masked else None
    y, new_mean, new_var = batch_norm(layout(x), mean, var, training=True, mask=mask)
    assert y[:, 2].isnan().any()
    assert torch.equal(new_mean, mean)
    assert torch.equal(new_var, var)


@pytest.mark.parametrize("training", [True, False])
def test_what_is_masked_has_no_way_in(training):
    x, weight, bias, (mean, var), mask = draw((5, 3, 4))
    results = []
    for poison in (0.0, 1e30, NAN, math.inf):
        poisoned = torch.where(mask, x, poison).requires_grad_()
        leaf = weight.clone().requires_grad_()
        y, *running = batch_norm(poisoned, mean, var.abs(), leaf, bias, training=training, mask=mask)
        y.square().sum().backward()
        assert (y[~mask.expand_as(y)] == 0).all()
        assert (poisoned.grad[~mask.expand_as(y)] == 0).all()
        results.append([y, *running, poisoned.grad, leaf.grad])
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_masks_of_every_form():
    x, _, _, (mean, var), mask = draw((5, 3, 4))
    forms = [mask.squeeze(1), mask, mask.expand(5, 3, 4)]
    outputs = [batch_norm(x, mean, var, training=True, mask=form) for form in forms]
    for other in outputs[1:]:
        for one, two in zip(outputs[0], other, strict=True):
            assert_close(one, two)
    per_channel = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    y, new_mean, new_var = batch_norm(x, mean, var, training=True, momentum=1, mask=per_channel)
    expected, exact_mean, exact_var = naive(x, mask=per_channel)
    assert_close(y, expected)
    assert_close(new_mean, exact_mean)
    assert_close(new_var, exact_var)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [0.1, 3.3333, 5.1, 10000.3])
def test_a_constant_channel_at_eps_zero_gives_beta(value, layout, dtype, masked):
    """Its mean is rounded, as the sum of many 0.1 is: what is left must not count as variance."""
    for n in (6, 7, 43):
        x = torch.full((n, 2, 3, 3), value, dtype=dtype)
        x[:, 1] = torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
        mask = torch.rand(n, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.7 if masked else None
        counted = torch.ones(n, 3, 3, dtype=torch.bool) if mask is None else mask
        weight, bias = torch.tensor([2.0, 1.0], dtype=dtype), torch.tensor([7.0, 0.0], dtype=dtype)
        leaf = layout(x).requires_grad_()
        y, *_ = batch_norm(leaf, None, None, weight, bias, training=True, eps=0, mask=mask)
        (gradient,) = torch.autograd.grad(y.sin().sum(), leaf, create_graph=True)
        gradient.square().sum().backward()
        assert (y[:, 0][counted] == 7).all()
        assert (gradient[:, 0] == 0).all()
        assert leaf.grad.isfinite().all()
        running = torch.tensor([value, 0], dtype=dtype), torch.tensor([0.0, 1], dtype=dtype)
        evaluated, *_ = batch_norm(x, *running, weight, bias, eps=0, mask=mask)
        assert (evaluated[:, 0][counted] == 7).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (0, 3, 2, 2)])
def test_an_empty_batch_is_empty_and_moves_nothing(shape, training):
    mean, var = torch.ones(3), torch.full((3,), 2.0)
    x = torch.zeros(shape, requires_grad=True)
    weight = torch.ones(3, requires_grad=True)
    y, new_mean, new_var = batch_norm(x, mean, var, weight, training=training)
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert (weight.grad == 0).all()
    assert torch.equal(new_mean, mean)
    assert torch.equal(new_var, var)


@pytest.mark.parametrize("mask", [None, torch.tensor([[True], [False]])])
def test_one_value_a_channel_gives_beta_and_says_nothing_about_the_variance(mask):
    x = torch.tensor([[5.0, 6.0]] * (1 if mask is None else 2))
    bias = torch.tensor([1.0, 2.0])
    y, mean, var = batch_norm(x, torch.zeros(2), torch.full((2,), 3.0), torch.ones(2), bias, training=True, mask=mask)
    assert torch.equal(y[0], bias)
    assert_close(mean, torch.tensor([0.5, 0.6]))
    assert torch.equal(var, torch.full((2,), 3.0))


def test_a_mask_without_a_true_element_moves_nothing():
    mean, var = torch.ones(2), torch.full((2,), 3.0)
    y, new_mean, new_var = batch_norm(
        torch.randn(4, 2), mean, var, training=True, mask=torch.zeros(4, dtype=torch.bool).view(4, 1)
    )
    assert (y == 0).all()
    assert torch.equal(new_mean, mean)
    assert torch.equal(new_var, var)


def test_running_statistics_are_the_geometric_average():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(6, 2, 3, generator=generator, dtype=torch.float64) for _ in range(5)]
    start = torch.tensor([0.5, 2.0]).double(), torch.tensor([1.5, 0.5]).double()
    mean, var = start
    for x in batches:
        _, mean, var = batch_norm(x, mean, var, training=True, momentum=torch.tensor(0.2))
    m = torch.tensor(0.2).double().item()
    for found, first, moments in (
        (mean, start[0], [x.mean((0, 2)) for x in batches]),
        (var, start[1], [x.var((0, 2)) for x in batches]),
    ):
        closed = (1 - m) ** 5 * first + sum(m * (1 - m) ** (4 - k) * moment for k, moment in enumerate(moments))
        assert_close(found, closed)


def test_momentum_one_stores_the_batch_and_zero_stores_nothing():
    x, _, _, (mean, var), _ = draw((5, 3, 4))
    _, stored, _ = batch_norm(x, mean, var, training=True, momentum=1.0)
    assert_close(stored, x.mean((0, 2)))
    _, kept_mean, kept_var = batch_norm(x, mean, var, training=True, momentum=0.0)
    assert torch.equal(kept_mean, mean)
    assert torch.equal(kept_var, var)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_takes_float32_parameters(layout):
    x, weight, bias, (mean, var), _ = draw((5, 3, 4, 2), torch.float32)
    low = layout(x.bfloat16())
    y, new_mean, _ = batch_norm(low, mean, var, weight.requires_grad_(), bias, training=True)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert new_mean.dtype == weight.grad.dtype == torch.float32
    assert_close(y, naive(low.double(), weight.detach().double(), bias.double())[0])
    assert batch_norm(low, mean, var.abs(), weight, bias)[0].dtype == torch.bfloat16


def test_what_float16_cannot_hold_is_not_stored():
    x = torch.tensor([[6e4], [6.1e4], [5.9e4]], dtype=torch.float16)
    mean, var = torch.zeros(1, dtype=torch.float16), torch.ones(1, dtype=torch.float16)
    _, new_mean, new_var = batch_norm(x, mean, var, training=True)
    assert torch.equal(new_mean, mean)
    assert torch.equal(new_var, var)


def test_running_statistics_may_be_differentiated_in_evaluation_and_come_back_without_history():
    x, weight, bias, (mean, var), _ = draw((4, 2, 3))
    inputs = [x.requires_grad_(), mean.requires_grad_(), var.abs().detach().requires_grad_(), weight, bias]
    assert gradcheck(lambda *given: batch_norm(*given)[0], inputs, rtol=1e-5)
    y, same_mean, same_var = batch_norm(*inputs)
    assert_close(y.detach(), batch_norm(*(value.detach() for value in inputs))[0])
    assert not same_mean.requires_grad
    assert not same_var.requires_grad


def test_a_momentum_with_a_gradient_gives_no_history():
    x, _, _, (mean, var), _ = draw((4, 2, 3))
    momentum = torch.tensor(0.1, requires_grad=True)
    assert not any(value.requires_grad for value in batch_norm(x, mean, var, training=True, momentum=momentum))


MISTAKES = [
    (lambda: batch_norm(torch.zeros(4, 2), eps=math.inf), "eps >= 0"),
    (lambda: batch_norm(torch.zeros(4, 2), torch.zeros(2), torch.ones(2), momentum=None), "momentum as a number"),
    (lambda: batch_norm(torch.zeros(3)), "floating x of shape"),
    (lambda: batch_norm(torch.zeros(3, 2, dtype=torch.int64)), "floating x of shape"),
    (lambda: batch_norm(torch.zeros(4, 2), weight=torch.ones(3)), r"weight of shape \(2,\)"),
    (lambda: batch_norm(torch.zeros(4, 2), torch.zeros(1), torch.ones(1)), r"running_mean of shape \(2,\)"),
    (lambda: batch_norm(torch.zeros(4, 2), torch.zeros(2), None), "running_mean and running_var, both or neither"),
    (lambda: batch_norm(torch.zeros(4, 2), eps=-1e-5), "eps >= 0"),
    (lambda: batch_norm(torch.zeros(4, 2), eps=NAN), "eps >= 0"),
    (lambda: batch_norm(torch.zeros(4, 2), momentum=-0.1), r"momentum in \[0, 1\]"),
    (lambda: batch_norm(torch.zeros(4, 2), momentum=1.5), r"momentum in \[0, 1\]"),
    (lambda: batch_norm(torch.zeros(4, 2), mask=torch.ones(4)), "a bool mask"),
    (lambda: batch_norm(torch.zeros(4, 2), mask=torch.ones(3, dtype=torch.bool)), "a bool mask"),
    (lambda: batch_norm(torch.zeros(4, 2), mask=torch.ones(1, 1, 4, dtype=torch.bool)), "a bool mask"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_are_named(call, message, no_type_checks):
    with pytest.raises(NormlabError, match=f"expected {message}"):
        call()

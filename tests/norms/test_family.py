"""Every pure function of the family against a plain formula in float64, and its derivatives."""

import family
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from compare import assert_close
from normlab import functional
from normlab.errors import NormlabError

RUNNING = {
    "ghost": functional.ghost_batch_norm,
    "renorm": functional.batch_renorm,
    "mean-only": functional.mean_only_batch_norm,
    "variance-only": functional.variance_only_batch_norm,
    "noisy": functional.noisy_batch_norm,
}
each_running = pytest.mark.parametrize("function", RUNNING.values(), ids=RUNNING)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", family.LAYOUTS)
@pytest.mark.parametrize("shape", family.SHAPES)
@pytest.mark.parametrize("name", family.FUNCTIONS)
def test_agrees_with_the_plain_formula(name, shape, layout, dtype):
    function, formula = family.FUNCTIONS[name]
    given = [value.requires_grad_() for value in family.draw(shape, dtype)]
    twins = [value.detach().double().requires_grad_() for value in given]
    y, expected = function(layout(given[0]), *given[1:]), formula(*twins)
    assert y.dtype == dtype
    # One value has no deviation: sqrt(eps) takes its place, and magnifies the rounding of the mean.
    scale = 100 if name == "instance" and len(shape) == 2 else 1
    assert_close(y, expected, scale=scale, what="y")
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.autograd.grad(y, given, g.to(dtype))
    wanted = torch.autograd.grad(expected, twins, g.to(dtype).double())
    for what, actual, twin in zip(("x", "weight", "bias"), found, wanted, strict=True):
        assert_close(actual, twin, scale=8 * scale, what=f"gradient of {what}")


@pytest.mark.parametrize("shape", [(5, 6), (3, 6, 2)])
@pytest.mark.parametrize("name", family.FUNCTIONS)
def test_derivatives_of_first_and_second_order(name, shape):
    function, _ = family.FUNCTIONS[name]
    given = [value.requires_grad_() for value in family.draw(shape)]
    assert gradcheck(function, given, rtol=1e-5)
    assert gradgradcheck(function, given, rtol=1e-5)


@each_running
def test_running_statistics_are_those_of_batch_norm(function):
    x, weight, bias = family.draw((5, 6, 4))
    mean, var = family.far(x, 0.5), family.far(x, 1.5)
    found = function(x, mean, var, weight, bias, training=True, momentum=0.3)[1:]
    expected = functional.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.3)[1:]
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted)


@each_running
@pytest.mark.parametrize("masked", [False, True])
def test_evaluation_is_a_map_of_each_value_by_the_running_statistics(function, masked):
    x, weight, bias = family.draw((5, 6, 4))
    mean, var = family.far(x, 0.5), family.far(x, 1.5)
    mask = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) < 0.6 if masked else None
    y, same_mean, same_var = function(x, mean, var, weight, bias, eps=0.1, mask=mask)
    centered = x - 0.5 if function is not functional.variance_only_batch_norm else x
    scaled = centered / 1.6**0.5 if function is not functional.mean_only_batch_norm else centered
    expected = family.affine(scaled, weight, bias)
    assert_close(y, expected if mask is None else expected * mask.unsqueeze(1))
    assert torch.equal(same_mean, mean)
    assert torch.equal(same_var, var)


@each_running
@pytest.mark.parametrize("training", [True, False])
def test_what_is_masked_has_no_way_in(function, training):
    x, weight, bias = family.draw((70, 6, 4))
    mask = torch.rand(70, 1, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    mean, var = family.far(x, 0.5), family.far(x, 1.5)
    results = []
    for poison in (0.0, float("nan")):
        leaf, scale = torch.where(mask, x, poison).requires_grad_(), weight.clone().requires_grad_()
        torch.manual_seed(0)
        y, *running = function(leaf, mean, var, scale, bias, training=training, mask=mask)
        y.square().sum().backward()
        assert (y[~mask.expand_as(y)] == 0).all()
        assert (leaf.grad[~mask.expand_as(y)] == 0).all()
        results.append([y, *running, leaf.grad, scale.grad])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    assert all(value.isfinite().all() for value in results[0])


@each_running
def test_masked_statistics_are_those_of_what_is_kept(function):
    x, _, _ = family.draw((5, 6, 4))
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[:3] = True
    mean, var = family.far(x, 0.5), family.far(x, 1.5)
    quiet = {"shift": 0.0, "scale": 1.0, "jitter": 0.0} if function is functional.noisy_batch_norm else {}
    masked = function(x, mean, var, training=True, mask=mask, **quiet)
    cut = function(x[:3], mean, var, training=True, **quiet)
    assert_close(masked[0][:3], cut[0])
    assert_close(masked[1], cut[1])
    assert_close(masked[2], cut[2])


@each_running
def test_nothing_passed_in_changes_and_nothing_returned_has_history(function):
    x, weight, bias = (value.requires_grad_() for value in family.draw((5, 6, 4)))
    given = [x, family.far(x, 0.5).requires_grad_(), family.far(x, 1.5).requires_grad_(), weight, bias]
    before = [value.detach().clone() for value in given]
    for training in (True, False):
        y, mean, var = function(*given, training=training)
        assert y.requires_grad
        assert not mean.requires_grad
        assert not var.requires_grad
    assert all(torch.equal(value, old) for value, old in zip(given, before, strict=True))


@each_running
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_moves_no_running_statistic(function, bad):
    x, _, _ = family.draw((70, 6, 4))
    x[1, 2, 0] = bad
    mean, var = family.far(x, 0.5), family.far(x, 1.5)
    y, new_mean, new_var = function(x, mean, var, training=True)
    assert not y[:, 2].isfinite().all()
    assert torch.equal(new_mean, mean)
    assert torch.equal(new_var, var)


@pytest.mark.parametrize("layout", family.LAYOUTS)
@pytest.mark.parametrize("name", family.FUNCTIONS)
def test_a_mean_ten_thousand_sigmas_away(name, layout):
    function, formula = family.FUNCTIONS[name]
    x, weight, bias = family.draw((4, 6, 24, 24), torch.float32)
    x = x * 0.5 + 1e4
    assert_close(function(layout(x), weight, bias), formula(x.double(), weight.double(), bias.double()), scale=1000)


@each_running
@pytest.mark.parametrize("value", [0.1, 10000.3])
def test_a_constant_channel_at_eps_zero_has_no_noise_to_magnify(function, value):
    x = torch.full((43, 2, 3), value, requires_grad=True)
    quiet = {"shift": 0.0, "scale": 1.0, "jitter": 0.0} if function is functional.noisy_batch_norm else {}
    limits = {"d_max": 0.0} if function is functional.batch_renorm else {}
    bias = torch.tensor([7.0, 0.5])
    y, *_ = function(x, torch.zeros(2), torch.ones(2), None, bias, training=True, eps=0, **quiet, **limits)
    y.sin().sum().backward()
    assert_close(y, bias.view(1, 2, 1).expand_as(y), scale=100)
    assert x.grad.isfinite().all()


MISTAKES = [
    (lambda x: functional.ghost_batch_norm(x, ghost_size=0), "ghost_size of 1 or more, got 0"),
    (
        lambda x: functional.ghost_batch_norm(x, mask=torch.ones(3, dtype=torch.bool), training=True, ghost_size=2),
        "a bool mask",
    ),
    (lambda x: functional.batch_renorm(x, torch.zeros(6), torch.ones(6), r_max=0.5), "r_max >= 1, got 0.5"),
    (lambda x: functional.batch_renorm(x, torch.zeros(6), torch.ones(6), d_max=-1.0), "d_max >= 0, got -1.0"),
    (lambda x: functional.noisy_batch_norm(x, scale=0.5), "shift >= 0, scale >= 1 and jitter >= 0"),
    (lambda x: functional.mean_only_batch_norm(x, momentum=2.0), r"momentum in \[0, 1\]"),
    (lambda x: functional.variance_only_batch_norm(x, eps=-1.0), "eps >= 0, got -1.0"),
    (lambda x: functional.layer_norm(x, torch.ones(5)), r"weight of shape \(6,\)"),
    (lambda x: functional.group_norm(x, 4), "a number of groups that divides 6 channels, got 4"),
    (lambda x: functional.group_norm(x, 0), "a number of groups that divides 6 channels, got 0"),
    (lambda x: functional.instance_norm(x, eps=-1.0), "eps >= 0"),
    (lambda x: functional.rms_norm(x.long()), "floating x"),
    (lambda x: functional.filter_response_norm(x, threshold=torch.ones(5)), r"threshold of shape \(6,\)"),
    (lambda x: functional.dynamic_tanh(x[:, 0, 0], 0.5), "floating x of shape"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_are_named(call, message, no_type_checks):
    with pytest.raises(NormlabError, match=f"expected {message}"):
        call(torch.randn(5, 6, 4))

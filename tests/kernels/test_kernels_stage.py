"""Lane stages, natively and by their reference: values, gradients, tails, threads, and what must be refused."""

import dataclasses
import math
import os

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from stage_cases import REFERENCE, Case, allowed, at_a_kink, cases, gradient_of, run
from torch import nn

from normlab.kernels import Pool, Settings
from normlab.kernels.stage import ACTIVATIONS

EXAMPLES = int(os.environ.get("NORMLAB_TEST_EXAMPLES", "200"))
POOLS = {
    "none": None,
    "avg": Pool("avg", (2, 2), (2, 2)),
    "max": Pool("max", (2, 2), (2, 2)),
    "max, overlapping": Pool("max", (2, 3), (1, 2), (1, 1)),
    "avg, overlapping": Pool("avg", (3, 2), (2, 1), (1, 1), count_padding=False),
}
LENET = Case(
    37, (3, 9, 9), Settings((1, 1), (2, 2), "none", "batch", 1e-5, "sigmoid", POOLS["avg"]), (6, 3, 5, 5), True, True
)
CASES = {
    "lenet": LENET,
    "residual": Case(
        19,
        (5, 7, 6),
        Settings((2, 1), (1, 0), "relu", "batch", 1e-5, "gelu", POOLS["max, overlapping"]),
        (7, 5, 3, 3),
        residual=True,
        mask=True,
        affine=True,
    ),
    "linear": Case(300, (150,), Settings(norm="batch", activation="silu"), (33, 150), True, True, mask=True),
    "no head": Case(
        33, (4, 6, 7), Settings(norm="fixed", activation="tanh", pool=POOLS["avg, overlapping"]), affine=True
    ),
    "only a head": Case(17, (2, 5, 5), Settings((1, 1), (1, 1)), (3, 2, 3, 3), True),
    "mean alone": Case(
        21, (3, 7, 6), Settings(norm="batch", activation="tanh", part="mean"), (5, 3, 3, 3), affine=True
    ),
    "variance alone": Case(
        300, (19,), Settings(norm="batch", activation="relu", part="variance"), (33, 19), True, True, mask=True
    ),
    "flat": Case(21, (9,), Settings(norm="batch", activation="gelu-tanh"), residual=True, affine=True),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def assert_as_in_float64(code, case):
    tensors = case.tensors()
    truth = run(REFERENCE, case, tensors, torch.float64)
    found, most = run(code, case, tensors), allowed(case, tensors, truth)
    assert found.keys() == truth.keys()
    for name, expected in truth.items():
        assert found[name].shape == expected.shape, name
        assert found[name].dtype == torch.float32, name
        error = (found[name].double() - expected).abs().max().item()
        assert error <= most[name], f"{name}: off by {error:.3g}, not {most[name]:.3g}"


@every_case
def test_a_stage(code, case):
    assert_as_in_float64(code, case)


def test_any_stage(code):
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(cases())
    def any_stage(case):
        assume(not at_a_kink(case, case.tensors()))
        assert_as_in_float64(code, case)

    any_stage()


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("mask", [False, True], ids=["", "mask"])
@pytest.mark.parametrize(
    ("before", "activation"), [(a, b) for a in ACTIVATIONS for b in ACTIVATIONS if "none" in (a, b)]
)
def test_every_activation(code, before, activation, mask, pool):
    chosen = Settings((1, 1), (1, 1), before, "batch", 1e-5, activation, pool)
    assert_as_in_float64(code, Case(18, (3, 6, 5), chosen, (4, 3, 3, 3), True, True, mask=mask, seed=3))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 300])
@pytest.mark.parametrize("case", [LENET, CASES["linear"]], ids=["conv", "linear"])
def test_every_tail(code, case, count):
    assert_as_in_float64(code, dataclasses.replace(case, count=count))


def test_the_reference_is_what_torchs_layers_do():
    case = dataclasses.replace(
        LENET, settings=dataclasses.replace(LENET.settings, pool=POOLS["max, overlapping"], activation="relu")
    )
    given = {name: value.double() for name, value in case.tensors().items()}
    layers = [nn.Conv2d(3, 6, 5, padding=2), nn.BatchNorm2d(6, momentum=1.0), nn.ReLU()]
    layers.append(nn.MaxPool2d((2, 3), (1, 2), (1, 1)))
    torchs = nn.Sequential(*layers).double()
    for parameter, name in zip(torchs.parameters(), ("weight", "bias", "gamma", "beta"), strict=True):
        parameter.data = given[name]
    x = given["x"].requires_grad_()
    y = torchs(x)
    names = ("dx", "dweight", "dbias", "dgamma", "dbeta")
    gradients = torch.autograd.grad(y, [x, *torchs.parameters()], gradient_of(y).double())
    expected = dict(zip(names, gradients, strict=True))
    elements = y.new_tensor(case.count * math.prod(case.inner[1:]))
    expected |= {"out": y.detach(), "mean": torchs[1].running_mean}
    expected |= {"var": torchs[1].running_var * (elements - 1) / elements}
    found = run(REFERENCE, case, given, torch.float64)
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        torch.testing.assert_close(
            found[name], each, rtol=1e-11, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("pool", [None, POOLS["avg"], POOLS["max"]], ids=["none", "avg", "max"])
@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid", "tanh"])
def test_nan_and_inf(code, activation, pool, number):
    case = Case(18, (2, 6, 6), Settings((1, 1), (1, 1), activation=activation, pool=pool), (3, 2, 3, 3), True)
    tensors = case.tensors()
    tensors["x"][3, 1, 2, 2] = tensors["x"][17, 0, 5, 5] = number
    truth, found = run(REFERENCE, case, tensors, torch.float64), run(code, case, tensors)
    if math.isnan(number):
        assert torch.equal(found["dweight"].isnan(), truth["dweight"].isnan())
    for name in (
        "out",
        "dx",
        "dbias",
    ):  # whether inf meets a slope of exactly zero in dweight is a matter of rounding
        torch.testing.assert_close(found[name].double(), truth[name], equal_nan=True, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("activation", ["none", "relu", "sigmoid", "tanh", "gelu", "gelu-tanh", "silu"])
@pytest.mark.parametrize("norm", ["none", "fixed"])
def test_a_nan_spoils_its_own_image_alone_and_never_vanishes(code, norm, activation):
    case = Case(18, (2, 6, 6), Settings(activation=activation, norm=norm), (3, 2, 3, 3))
    tensors = case.tensors()
    tensors["x"][3, 1] = math.nan
    out = run(code, case, tensors)["out"]
    assert out[3].isnan().all()
    assert not out[torch.arange(18) != 3].isnan().any()


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "none"])
def test_a_nan_in_a_batch_norm_is_in_all_of_its_outcome(code, activation):
    case = dataclasses.replace(LENET, settings=dataclasses.replace(LENET.settings, activation=activation))
    tensors = case.tensors()
    tensors["x"][-1, 0, 0, 0] = math.nan
    found = run(code, case, tensors)
    assert all(found[name].isnan().all() for name in ("out", "mean", "var", "dgamma"))


@pytest.mark.parametrize("head", [None, "linear", "conv"])
@pytest.mark.parametrize(("middle", "sigma"), [(1e4, 1.0), (-1e4, 1.0), (1e2, 1e-2), (1e-6, 1e-10)])
def test_statistics_far_from_zero(code, head, middle, sigma):
    generator = torch.Generator().manual_seed(0)
    shape = (3,) if head == "linear" else (3, 9, 8)
    x = (torch.randn(250, *shape, generator=generator, dtype=torch.float64) * sigma + middle).float()
    weight = {None: None, "linear": torch.eye(3), "conv": torch.eye(3).reshape(3, 3, 1, 1)}[head]
    _, mean, var = code.stage(code.pack(x), Settings(norm="batch"), weight)
    others = [0, *range(2, x.dim())]
    expected = x.double()
    exact = 2e-6 if code is REFERENCE else 2e-7
    torch.testing.assert_close(mean.double(), expected.mean(others), rtol=exact, atol=0.0)
    torch.testing.assert_close(var.double(), expected.var(others, correction=0), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_a_constant_channel(code, value):
    x = torch.full((37, 2, 5, 5), value).requires_grad_()
    out, mean, var = code.stage(code.pack(x), Settings(norm="batch", activation="none"))
    torch.testing.assert_close(mean, torch.full((2,), value), rtol=2e-7, atol=0.0)
    assert (var <= (2e-7 * value) ** 2).all()
    y = code.unpack(out)
    assert (y.abs() <= 4e-7 * abs(value) / math.sqrt(1e-5)).all()
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert gradient.isfinite().all()


@every_case
def test_lanes_that_only_fill_up(code, case):
    """They enter no statistic and no gradient whatever they hold, and theirs are zero."""
    case = dataclasses.replace(case, count=code.width + 3)
    tensors = case.tensors()
    tail = slice(case.count - code.width, None)
    outcomes = []
    for poison in (None, math.nan, 1e30):
        leaves = {
            name: each.requires_grad_(name not in ("mean", "var", "mask")) for name, each in case.tensors().items()
        }
        packed = {name: code.pack(leaves[name].detach()) for name in ("x", "residual", "mask") if name in tensors}
        for name, each in packed.items():
            if poison is not None:
                each.data[-1, ..., tail] = poison
            each.data.requires_grad_(name != "mask")
        out, mean, var = code.stage(settings=case.settings, **leaves | packed)
        y = code.unpack(out)
        wanted = [packed["x"].data, *(leaves[n] for n in ("weight", "bias", "gamma", "beta") if n in leaves)]
        wanted += [packed["residual"].data] if "residual" in packed else []
        gradients = torch.autograd.grad(y, wanted, torch.ones_like(y))
        if poison is None:
            for each in (gradients[0], *([gradients[-1]] if "residual" in packed else [])):
                assert (each[-1, ..., tail] == 0).all()
                assert (each[-1, ..., : tail.start] != 0).any()
        outcomes.append([y, *([] if mean is None else [mean, var])])
    for other in outcomes[1:]:
        assert all(torch.equal(*pair) for pair in zip(outcomes[0], other, strict=True))


@every_case
def test_every_number_of_threads_gives_the_same_bits(native, case):
    case = dataclasses.replace(case, count=300)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(run(native, case, case.tensors()))
    for name, first in found[0].items():
        assert all(torch.equal(first, other[name]) for other in found[1:]), name


SMALL = {
    "conv": Case(
        3,
        (2, 4, 4),
        Settings((2, 1), (1, 0), "tanh", "batch", 1e-2, "sigmoid", POOLS["avg"]),
        (2, 2, 3, 2),
        bias=True,
        affine=True,
    ),
    "linear": Case(21, (3,), Settings(norm="batch", activation="gelu", eps=1e-2), (2, 3), True, True, mask=True),
    "max": Case(
        3, (2, 4, 4), Settings(norm="fixed", activation="silu", pool=POOLS["max"]), affine=True, residual=True
    ),
    "tanh": Case(3, (2, 3, 3), Settings(activation="gelu-tanh"), (2, 2, 2, 2), residual=True, mask=True),
    "relu": Case(3, (2, 3, 3), Settings((1, 1), (0, 0), "relu", "batch", 1e-2, "tanh"), (2, 2, 1, 1), affine=True),
    **{
        part: Case(5, (2, 2, 3), Settings(norm="batch", eps=1e-2, activation="silu", part=part), affine=True)
        for part in ("mean", "variance")
    },
}
every_small = pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)


def function_of(code, case, dtype):
    """Examples and parameters -> examples, and a point to differentiate it at."""
    generator = torch.Generator().manual_seed(1)
    shapes = {name: each.shape for name, each in case.tensors().items()}
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    fixed = {name: tensors.pop(name).square() for name in ("mean", "var", "mask") if name in tensors}
    names = list(tensors)

    def function(*values):
        given = {**dict(zip(names, values, strict=True)), **fixed}
        packed = {name: code.pack(given[name]) for name in ("x", "residual", "mask") if name in given}
        return code.unpack(code.stage(settings=case.settings, **given | packed)[0])

    return function, [each.requires_grad_() for each in tensors.values()]


@every_small
def test_the_references_derivatives(case):
    function, at = function_of(REFERENCE, case, torch.float64)
    assert torch.autograd.gradcheck(function, at, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, at, fast_mode=True)


@every_small
def test_second_derivatives(native, case):
    found = []
    for code, dtype in ((native, torch.float32), (REFERENCE, torch.float64)):
        function, at = function_of(code, case, dtype)
        first = torch.autograd.grad(function(*at).square().sum(), at, create_graph=True)
        norm = sum(each.square().sum() for each in first)
        found.append([*first, *torch.autograd.grad(norm, at)])
    largest = max(each.abs().max().item() for each in found[1])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=2e-4, atol=2e-5 * largest)


@every_case
def test_gradients_that_nobody_asks_for(native, case):
    """Each leaf alone gets what it gets with all others."""
    tensors = case.tensors()
    truth = run(native, case, tensors)
    for name in tensors.keys() - {"mean", "var", "mask"}:
        given = {n: each.clone().requires_grad_(n == name) for n, each in tensors.items()}
        packed = {n: native.pack(given[n]) for n in ("x", "residual", "mask") if n in given}
        y = native.unpack(native.stage(settings=case.settings, **given | packed)[0])
        assert torch.equal(torch.autograd.grad(y, given[name], gradient_of(y))[0], truth[f"d{name}"])

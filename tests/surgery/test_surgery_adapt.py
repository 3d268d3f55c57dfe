"""adapt: evaluation by the batch at hand, against the plain formula; training, buffers and class as before."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compare import assert_close
from normlab.errors import NormlabError
from normlab.models import lenet
from normlab.nn import make_norm
from normlab.surgery import adapt, recalibrate

CHANNELS = 3
SPATIAL = {1: (), 2: (2, 3), 3: (2, 1, 3)}
TORCHS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 5


def used(norm: nn.Module) -> nn.Module:
    """In float64, with no number at its default."""
    norm = norm.double()
    with torch.no_grad():
        for index, value in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            value.copy_(torch.rand(CHANNELS, generator=torch.Generator().manual_seed(index)) * 4 + 1)
    return norm


def plainly(norm: nn.Module, x: Tensor, source_count: float, kept: Tensor | None = None) -> Tensor:
    """Schneider et al. 2020, section 3, channel by channel."""
    y = torch.zeros_like(x)
    kept = torch.ones_like(x[:, 0], dtype=torch.bool) if kept is None else kept
    n, stored = len(x), source_count
    for c in range(CHANNELS):
        values = x[:, c][kept]
        mean = (stored * norm.running_mean[c] + n * values.mean()) / (stored + n)
        var = (stored * norm.running_var[c] + n * values.var(correction=0)) / (stored + n)
        y[:, c] = norm.weight[c] * (x[:, c] - mean) / (var + norm.eps).sqrt() + norm.bias[c]
    return torch.where(kept.unsqueeze(1), y, 0)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([1, 2, 3]), st.sampled_from(["torch", "torch sync", "batch", "sync", "frozen"]),
    st.integers(2, 7), st.sampled_from([0, 0.5, 16]), st.integers(0, 99),
)  # fmt: skip
def test_evaluation_is_by_the_mixture(dim: int, name: str, n: int, source_count: float, seed: int) -> None:
    theirs = {"torch": TORCHS[dim], "torch sync": nn.SyncBatchNorm}
    norm = used(theirs[name](CHANNELS) if name in theirs else make_norm(name, CHANNELS, dim))
    model = nn.Sequential(norm)
    x = draw(n, CHANNELS, *SPATIAL[dim], seed=seed)
    expected = plainly(norm, x, source_count)
    assert list(adapt(source_count)(model).done) == ["0"]
    assert_close(model.eval()(x), expected, scale=10)


def test_masked_elements_have_no_part_in_it() -> None:
    norm, x = used(make_norm("batch", CHANNELS, 1)).eval(), draw(6, CHANNELS, 5)
    mask = draw(6, 5, seed=1) > 4
    expected = plainly(norm, x, 2.0, mask)
    adapt(2.0)(norm)
    assert_close(norm(torch.where(mask.unsqueeze(1), x, torch.nan), mask), expected, scale=10)


def test_what_shifted_the_data_is_taken_off() -> None:
    model, x = lenet(seed=0).double(), draw(40, 1, 28, 28)
    recalibrate(model, lambda: [x])
    expected = model.eval()(x)
    assert (model(2 * x + 3) - expected).abs().max() > 1e-2
    changes = adapt()(model)
    assert len(changes.done) == 4
    assert_close(model(2 * x + 3), expected, scale=1e6)  # but for eps


def test_gradients_flow_through_the_batchs_statistics() -> None:
    for norm in (used(nn.BatchNorm1d(CHANNELS)).eval(), used(make_norm("batch", CHANNELS, 1)).eval()):
        x, weights = draw(5, CHANNELS).requires_grad_(), draw(5, CHANNELS, seed=1)
        (expected,) = torch.autograd.grad((plainly(norm, x, 3.0) * weights).sum(), x)
        adapt(3.0)(norm)
        (norm(x) * weights).sum().backward()
        assert_close(x.grad, expected, scale=10)


@pytest.mark.parametrize("make", [nn.BatchNorm2d, lambda width: make_norm("batch", width, 2)])
def test_training_is_as_before_and_evaluation_moves_nothing(make) -> None:
    model, x = nn.Sequential(used(make(CHANNELS))), draw(6, CHANNELS, 2, 2)
    twin = copy.deepcopy(model)
    adapt(4.0)(model)
    for mode in (True, False, True, False):
        before = copy.deepcopy(model.train(mode).state_dict())
        y = model(x)
        if mode:
            assert torch.equal(y, twin(x))
            torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)
        else:
            assert_close(y, plainly(model[0], x, 4.0), scale=10)
            torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [nn.Sequential, nn.DataParallel])
def test_undo_gives_the_very_same_model_back(wrap) -> None:
    model, x = wrap(lenet(seed=0)), torch.randn(4, 1, 28, 28)
    seen: list[str] = []
    model.register_forward_hook(lambda *_: seen.append("model"))
    model.get_submodule(next(iter(model._modules))).norm1.register_forward_hook(lambda *_: seen.append("norm"))
    held = [(module, type(module), set(vars(module))) for module in model.modules()]
    expected, keys = model.eval()(x), [*model.state_dict()]
    changes = adapt(2)(model)
    assert len(changes.done) == 4
    assert not torch.equal(model(x), expected)
    assert [*model.state_dict()] == keys
    changes.undo()
    assert [(module, type(module), set(vars(module))) for module in model.modules()] == held
    assert torch.equal(model(x), expected)
    assert seen == ["norm", "model"] * 3


def test_a_symbolic_trace_takes_it_for_one_call() -> None:
    model, x = nn.Sequential(used(nn.BatchNorm1d(CHANNELS)), nn.ReLU()).eval(), draw(4, CHANNELS)
    adapt()(model)
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


def test_what_is_left_is_named_with_its_reason() -> None:
    class Own(nn.BatchNorm1d):
        pass

    model = nn.Sequential(
        Own(3), nn.BatchNorm1d(3, track_running_stats=False), make_norm("ghost", 3, 1), nn.BatchNorm1d(3)
    )
    assert list(adapt(1)(model).done) == ["3"]
    assert adapt(2)(model).left == {
        "0": "is a Own, whose forward is its own",
        "1": "keeps no running statistics: it evaluates by the batch's already",
        "2": "is a GhostBatchNorm1d, whose forward is its own",
        "3": "is adapted already, with source_count=1",
    }


def test_one_value_has_no_statistics_of_its_own() -> None:
    norm, x = used(nn.BatchNorm1d(CHANNELS)).eval(), draw(1, CHANNELS)
    changes = adapt()(norm)
    with pytest.raises(NormlabError, match=r"more than one value per channel .* got input \(1, 3\); use larger"):
        norm(x)
    changes.undo()
    adapt(15)(norm)
    mean, var = (15 * norm.running_mean + x[0]) / 16, 15 / 16 * norm.running_var
    assert_close(norm(x), norm.weight * (x - mean) / (var + norm.eps).sqrt() + norm.bias)
    assert norm(x[:0]).shape == (0, CHANNELS)


def test_poisoned_statistics_have_no_part_in_the_batchs_own() -> None:
    norm, x = used(nn.BatchNorm1d(CHANNELS)).eval(), draw(4, CHANNELS)
    expected = plainly(norm, x, 0)
    norm.running_mean.fill_(torch.nan)
    adapt()(norm)
    assert_close(norm(x), expected, scale=10)


@pytest.mark.parametrize("source_count", [-1, float("nan"), float("inf")])
def test_a_count_is_a_number_from_0(source_count: float) -> None:
    with pytest.raises(NormlabError, match="a source_count of 0 or more"):
        adapt(source_count)

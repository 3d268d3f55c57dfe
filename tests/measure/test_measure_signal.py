"""signal: the rates that theory gives, and means by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from normlab.errors import NormlabError
from normlab.measure import paired, signal_propagation
from normlab.measure.signal import Propagation, rate
from normlab.models import deep

N, WIDTH = 64, 256
DRAW = torch.Generator().manual_seed(0)
X = torch.randn(N, WIDTH, generator=DRAW)
Y = torch.arange(N) % 10


def net(depth: int = 10, width: int = WIDTH, **options: object) -> nn.Module:
    return deep((WIDTH,), depth=depth, width=width, seed=0, **options)


def test_means_by_hand() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, 10))
    found = signal_propagation(model, X, Y, cross_entropy)
    one = model[0](X)
    one.retain_grad()
    two = model[2](torch.tanh(one))
    two.retain_grad()
    cross_entropy(two, Y).backward()
    assert found.layers == ("0", "2")
    for index, values in enumerate((one, two)):
        assert found.activations[index] == pytest.approx(values.square().mean().item(), rel=1e-6)
        assert found.gradients[index] == pytest.approx(values.grad.square().mean().item(), rel=1e-6)
        assert found.correlations[index] == pytest.approx(
            cosine_similarity(values[: N // 2], values[N // 2 :]).mean().item(), abs=1e-6
        )


@pytest.mark.parametrize(("values", "expected"), [([1, 2, 4, 8], 2), ([9, 3, 1], 1 / 3), ([5, 5], 1), ([4, 1, 4], 1)])
def test_the_rate_is_that_of_a_straight_line_through_the_logarithms(values: list, expected: float) -> None:
    assert rate(values) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.0, 2.0], [1.0, math.nan], [1.0, math.inf], [-1.0, 1.0]])
def test_no_rate_of_what_has_no_logarithm(values: list) -> None:
    assert math.isnan(rate(values))


def test_rates_leave_out_the_last_layer_and_the_first_ones() -> None:
    values = (50.0, 1.0, 2.0, 4.0, 9.0)
    found = Propagation(tuple("abcde"), values, values, tuple(1 - value for value in values))
    assert found.activation_rate(skip=1) == pytest.approx(2)
    assert found.gradient_rate(skip=1) == pytest.approx(1 / 2), "from a layer to the one before it"
    assert found.decorrelation_rate(skip=1) == pytest.approx(2)
    assert found.activation_rate() < 1


def loss_of_a_random_direction(logits: Tensor, y: Tensor) -> Tensor:
    return (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).sum()


def rates(model: nn.Module, x: Tensor = X, skip: int = 2) -> tuple[float, float, float]:
    found = signal_propagation(model, x, Y.repeat(2)[: len(x)], loss_of_a_random_direction)
    return found.activation_rate(skip), found.gradient_rate(skip), found.decorrelation_rate(skip)


def test_relu_after_he_keeps_both() -> None:
    """He et al. 2015: mean squares stay at weights of variance 2 / width, without a norm."""
    activation, gradient, _ = rates(net(norms="none", gain=2**0.5))
    assert activation == pytest.approx(1, abs=0.08)
    assert gradient == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_a_linear_network_multiplies_both_by_the_squared_gain(gain: float) -> None:
    activation, gradient, apart = rates(net(norms="none", activation="none", gain=gain), paired(X, 0.5, DRAW))
    assert activation == pytest.approx(gain**2, rel=0.08)
    assert gradient == pytest.approx(gain**2, rel=0.08)
    assert apart == pytest.approx(1, abs=0.08)


def test_batch_norm_makes_gradients_explode_where_nothing_else_does() -> None:
    """Yang et al. 2019: pi / (pi - 1) in the limit; one seed of a small network is near it."""
    activation, gradient, _ = rates(net(depth=12))
    assert activation == pytest.approx(1, abs=0.1)
    assert gradient == pytest.approx(math.pi / (math.pi - 1), rel=0.1)
    assert rates(net(depth=12, norms="none", gain=2**0.5))[1] < 1.2


def test_two_inputs_part_behind_batch_norm_and_become_one_without() -> None:
    x = paired(X, 0.95, DRAW)
    assert rates(net(depth=6), x, skip=0)[2] > 1.1
    assert rates(net(depth=6, norms="none", gain=2**0.5), x, skip=0)[2] < 0.95


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 0.3, 1.0])
def test_paired_inputs_have_their_correlation_and_length(correlation: float) -> None:
    x = torch.rand(6, 2, 3, 3, dtype=torch.float64) + 1
    both = paired(x, correlation).flatten(1)
    assert both.shape == (12, 18)
    assert torch.equal(both[:6], x.flatten(1))
    assert torch.allclose(cosine_similarity(both[:6], both[6:]), torch.tensor(correlation).double())
    assert torch.allclose(both[:6].norm(dim=1), both[6:].norm(dim=1))


def test_a_correlation_that_there_is_not() -> None:
    with pytest.raises(NormlabError, match=r"a correlation from -1 to 1, got 1\.5"):
        paired(X, 1.5)


def test_one_example_has_no_partner() -> None:
    found = signal_propagation(net(2, norms="none"), X[:1], Y[:1], cross_entropy)
    assert all(map(math.isnan, found.correlations))


def test_a_layer_used_twice_is_two_depths() -> None:
    class Twice(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](self[0](x)))

    found = signal_propagation(Twice(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)), X, Y, cross_entropy)
    assert found.layers == ("0", "0 (2)", "1")

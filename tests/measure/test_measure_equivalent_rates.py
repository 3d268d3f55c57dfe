"""equivalent_rates: weight decay at a constant rate, and a growing rate without."""

import itertools
import math

import pytest
import torch
from looks import look
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab import models
from normlab.measure import equivalent_rates
from normlab.measure.equivalent_rates import descent, distance
from normlab.surgery import swap

LR, DECAY, STEPS = 0.2, 0.05, 40


def net() -> nn.Module:
    return models.mlp((1, 4, 4), widths=[7, 6], activation="tanh", seed=0).double()


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    size = (count, 12, 1, 4, 4)
    x, y = torch.randn(size, generator=draw).double(), torch.randint(10, size[:2], generator=draw)
    return [*zip(x, y, strict=True)]


def plain_loss(weights: list[Tensor], rest: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The net in full, its norms at eps = 0."""
    h = x.flatten(1)
    for index, weight in enumerate(weights, 1):
        z = h @ weight.T + rest.get_submodule(f"linear{index}").bias
        h = torch.tanh((z - z.mean(0)) / (z - z.mean(0)).square().mean(0).sqrt())
    return cross_entropy(h @ rest.output.weight.T + rest.output.bias, y)


def plain_descent(rates: list[float], decay: float) -> list[list[Tensor]]:
    model, line = net(), []
    weights = [model.linear1.weight.detach(), model.linear2.weight.detach()]
    for step, rate in enumerate(rates):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        plain_loss(leaves, model, *batches()[step % 3]).backward()
        weights = [
            weight - rate * leaf.grad - rate * decay * weight for weight, leaf in zip(weights, leaves, strict=True)
        ]
        line.append(weights)
    return line


def growing(exponent: float) -> list[float]:
    return [LR * (1 - LR * DECAY) ** (exponent * step - 1) for step in range(STEPS)]


def farthest(one: list[list[Tensor]], other: list[list[Tensor]], shrink: float = 1.0) -> float:
    return max(
        distance(u, shrink**step * w)
        for step, (us, ws) in enumerate(zip(one, other, strict=True), 1)
        for u, w in zip(us, ws, strict=True)
    )


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_a_descent_is_that_of_the_plain_formula(decay: float) -> None:
    found = [*descent(net(), batches(), cross_entropy, [LR] * STEPS, decay)]
    assert farthest(found, plain_descent([LR] * STEPS, decay)) < 1e-12


def test_only_the_growing_rate_of_the_theorem_takes_the_same_steps() -> None:
    decayed = plain_descent([LR] * STEPS, DECAY)
    assert farthest(decayed, plain_descent(growing(-2), 0), 1 - LR * DECAY) < 1e-12
    for wrong in (-1, 0):
        assert farthest(decayed, plain_descent(growing(wrong), 0), 1 - LR * DECAY) > 1e-3


def asked(model: nn.Module, **options: float) -> dict[str, float]:
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    return equivalent_rates(0, **{"lr": LR, "weight_decay": DECAY, "examples": 12, **options})(look(model, x, y))


def test_the_probe_reads_both_from_the_plain_descents() -> None:
    found, line = asked(net(), steps=STEPS), plain_descent([LR] * STEPS, DECAY)
    assert found["apart"] < 1e-12
    assert found["growth"] == pytest.approx(math.exp(-2 * (STEPS - 1) * math.log(1 - LR * DECAY)))
    late = [*itertools.pairwise(line)][-STEPS // 4 :]
    pairs = [pair for one, other in late for pair in zip(one, other, strict=True)]
    cosines = [float((a * b).sum() / a.norm() / b.norm()) for a, b in pairs]
    mean_square = sum(math.acos(cosine) ** 2 for cosine in cosines) / len(cosines)
    assert found["turn"] == pytest.approx(math.sqrt(mean_square / (2 * LR * DECAY)), rel=1e-6)


@pytest.mark.slow
def test_a_thousand_steps_stay_together_to_1e_9_and_turn_as_theory_says() -> None:
    model = models.mlp((1, 4, 4), widths=[6], activation="relu", seed=0)
    found = asked(model, lr=0.3, weight_decay=0.01, steps=1_000)
    assert found["growth"] > 400
    assert found["apart"] < 1e-9
    assert found["turn"] == pytest.approx(1, abs=0.05)


def test_convolutions_and_dropout() -> None:
    model = models.lenet((1, 16, 16), activation="relu", dropout=0.5, seed=0)
    x = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert equivalent_rates(0, steps=8, examples=8)(look(model, x, torch.arange(8)))["apart"] < 1e-9


def test_norms_of_the_family_stay_what_they_are() -> None:
    model = net()
    plain = asked(model, steps=STEPS)
    swap("batch", "ghost", {"ghost_size": 4})(model)
    ghosts = asked(model, steps=STEPS)
    assert ghosts["apart"] < 1e-12
    assert abs(ghosts["turn"] - plain["turn"]) > 1e-3


def test_a_network_whose_scale_counts_is_told() -> None:
    model = net()
    assert asked(model, steps=STEPS)["apart"] < 1e-12
    model.linear1.register_forward_hook(lambda linear, given, out: out + given[0][:, :7])
    assert asked(model, steps=STEPS)["apart"] > 1e-4


def test_what_is_no_number_is_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 10))
    assert all(math.isnan(asked(model, steps=4)[name]) for name in ("apart", "turn"))
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3), nn.Linear(3, 10)).double()
    nn.init.zeros_(constant[1].weight)
    assert math.isnan(asked(constant, steps=4)["apart"])

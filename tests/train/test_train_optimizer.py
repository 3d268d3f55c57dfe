"""The optimizer's groups, and the learning rate of every step against torch's own schedulers."""

import copy

import pytest
import torch
from torch import nn

from compare import assert_close
from normlab.models import lenet
from normlab.store import Recipe
from normlab.train.optimizer import learning_rate, make_optimizer

STEPS = [1, 2, 3, 4, 7, 10, 33, 101, 2350]


def torchs_rates(schedule: str, lr: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, cycle_momentum=False)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return rates


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
@pytest.mark.parametrize("lr", [1.0, 0.003])
def test_the_schedules_are_torchs(schedule: str, lr: float, steps: int) -> None:
    recipe = Recipe(schedule=schedule, lr=lr)
    ours = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert ours == pytest.approx(torchs_rates(schedule, lr, steps), rel=1e-9, abs=1e-15)


def test_the_constant_schedule() -> None:
    assert {learning_rate(Recipe(lr=0.3), step, 7) for step in range(7)} == {0.3}


class Every(nn.Module):
    """Each kind of layer whose parameters are to be spared, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.linear = nn.Linear(3, 3)
        self.to_one = nn.Linear(3, 1, bias=False)
        self.batch = nn.BatchNorm2d(3)
        self.instance = nn.InstanceNorm2d(3, affine=True)
        self.group = nn.GroupNorm(1, 3)
        self.layer = nn.LayerNorm((3, 4, 4))
        self.rms = nn.RMSNorm((3, 4))
        self.scale = nn.Parameter(torch.ones(3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


DECAYED = {"conv.weight", "linear.weight", "to_one.weight"}


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_spares_norms_and_biases_unless_asked(kind: str, decay_all: bool) -> None:
    """Under a gradient of zero, decay is all that moves a parameter."""
    model = Every()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape) + 1)
    before = copy.deepcopy(dict(model.named_parameters()))
    recipe = Recipe(optimizer=kind, lr=0.5, weight_decay=0.1, decay_all=decay_all)
    optimizer = make_optimizer(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    trained = {name for name, parameter in before.items() if parameter.requires_grad}
    assert "frozen.weight" not in trained
    assert moved == (trained if decay_all else DECAYED)
    for name in moved:  # L2 is a gradient of weight_decay * w, decoupled decay the same by itself
        assert_close(dict(model.named_parameters())[name], before[name] * (1 - 0.5 * 0.1), what=name)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_every_trained_parameter_stands_in_one_group(decay: float) -> None:
    for model in (Every(), lenet(), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)):
        optimizer = make_optimizer(model, Recipe(weight_decay=decay))
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert len(held) == len(trained)
        assert set(held) == set(trained)


@pytest.mark.parametrize(
    ("kind", "torchs"),
    [
        ("sgd", lambda p, **how: torch.optim.SGD(p, lr=0.1, **how)),
        ("momentum", lambda p, **how: torch.optim.SGD(p, lr=0.1, momentum=0.8, **how)),
        ("adamw", lambda p, **how: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0, **how)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_optimizers_are_torchs(kind: str, torchs, dtype: torch.dtype) -> None:
    ours, theirs = (nn.Linear(4, 3).to(dtype) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    # In bfloat16 torch's plain implementation rounds every intermediate, its fused one the result alone; four
    # steps drive the two apart.
    fused = dtype is torch.bfloat16
    recipe = Recipe(optimizer=kind, lr=0.1, momentum=0.8)
    optimizers = [make_optimizer(ours, recipe), torchs(theirs.parameters(), fused=fused)]
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for _ in range(4):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert_close(ours.weight, theirs.weight)

"""regroup: other options for some of an optimizer's parameters, its state and its other options as they were."""

import pytest
import torch
from torch import nn

from normlab.surgery import regroup


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def groups_of(optimizer: torch.optim.Optimizer) -> list[dict]:
    return [{**group, "params": [id(each) for each in group["params"]]} for group in optimizer.param_groups]


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(16, 4, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("named", [False, True])
def test_a_part_of_a_group_gets_a_group_of_its_own(named: bool) -> None:
    model = build()
    given = model.named_parameters() if named else model.parameters()
    optimizer = torch.optim.AdamW(given, lr=0.1, weight_decay=0.5, betas=(0.8, 0.9))
    step(model, optimizer)
    before, state = groups_of(optimizer), dict(optimizer.state)
    changes = regroup(optimizer, model[1].parameters(), weight_decay=0.0)
    rest, norms = optimizer.param_groups
    assert [id(each) for each in norms["params"]] == [id(each) for each in model[1].parameters()]
    assert (rest["weight_decay"], norms["weight_decay"], norms["lr"], norms["betas"]) == (0.5, 0.0, 0.1, (0.8, 0.9))
    assert norms.get("param_names") == (["1.weight", "1.bias"] if named else None)
    assert optimizer.state == state
    assert changes.done == {"": "2 parameters with weight_decay 0.0"}
    step(model, optimizer)
    changes.undo()
    assert groups_of(optimizer) == before


def test_it_steps_as_one_that_was_built_so() -> None:
    model, twin = build(), build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    regroup(optimizer, model[1].parameters(), weight_decay=0.0)
    others = [*twin[0].parameters(), *twin[2].parameters()]
    built = torch.optim.SGD(
        [{"params": others, "weight_decay": 0.5}, {"params": twin[1].parameters()}], lr=0.1, momentum=0.9
    )
    for _ in range(3):
        step(model, optimizer)
        step(twin, built)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_whole_group_stays_one_also_under_a_scheduler() -> None:
    model = build()
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model], lr=0.1, weight_decay=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert regroup(optimizer, model[1].parameters(), weight_decay=0.0)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.5]
    step(model, optimizer)
    scheduler.step()


def test_unknown_parameters_are_added() -> None:
    model = build()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1, weight_decay=0.5)
    changes = regroup(optimizer, model[1].parameters(), weight_decay=0.0)
    before = model[1].bias.detach().clone()
    step(model, optimizer)
    assert not torch.equal(model[1].bias, before)
    changes.undo()
    assert len(optimizer.param_groups) == 1


def test_left_where_groups_are_counted_or_named() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = groups_of(optimizer)
    assert "scheduler" in regroup(optimizer, model[1].parameters(), weight_decay=0.0).left[""]
    assert groups_of(optimizer) == before
    named = torch.optim.SGD(model[0].named_parameters(), lr=0.1)
    assert "names" in regroup(named, model[1].parameters(), weight_decay=0.0).left[""]
    assert len(named.param_groups) == 1


def test_nothing_is_done_for_nothing() -> None:
    optimizer = torch.optim.SGD(build().parameters(), lr=0.1)
    assert not regroup(optimizer, [], weight_decay=0.0)
    assert len(optimizer.param_groups) == 1

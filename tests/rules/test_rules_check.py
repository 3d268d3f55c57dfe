"""What a check refuses, what it does not ask, and that the model is as before, whatever its forward does to it."""

import random

import numpy as np
import pytest
import torch
from states import state_of
from torch import Tensor, nn

from normlab import check
from normlab.errors import NormlabError
from normlab.surgery.untouched import untouched


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))


class Restless(nn.Module):
    """Does to itself whatever a forward can do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()
        self.mean = torch.zeros(4)
        self.calls = 0
        self.seen: list[int] = []
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("wild", torch.full((2,), float("nan")))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(len(x))
        self.count = self.count + 1
        self.body[0].bias.data.add_(1)
        self.body[4].requires_grad_(False)
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0) + self.body[0].weight.mean()
        self.latest = x
        self.body[2].register_forward_hook(lambda *_: None)
        random.random()
        np.random.rand()
        return self.body(x)


def with_gradients(model: nn.Module) -> nn.Module:
    """As in the middle of a training, part of it in evaluation mode."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.get_submodule("body.1").eval()
    return model


@pytest.mark.parametrize("training", [False, True])
def test_whatever_a_forward_does_is_taken_back(training: bool) -> None:
    model = with_gradients(Restless())
    given = torch.randn(8, 4)
    held = {id(value) for value in (*model.parameters(), *model.buffers())}
    before = state_of(model)
    check(model, given, train=training)
    assert state_of(model) == before
    assert {id(value) for value in (*model.parameters(), *model.buffers())} == held


def test_taken_back_where_it_raises() -> None:
    model = with_gradients(Restless())
    given = torch.randn(8, 4)
    before = state_of(model)

    def interrupted() -> None:
        with untouched(model):
            model(given).sum().backward()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch": torch.zeros(2, 9)}, "expected a model that takes the batch, got RuntimeError: mat1 and mat2"),
        ({"select": ["NL199"]}, "expected a known rule, got 'NL199'; did you mean NL"),
        ({"select": ["NL1O1"]}, "did you mean NL"),
        ({"select": [""]}, "expected a known rule, got ''"),
        ({"ignore": ["NL101"]}, "expected a rule to ignore as ID=reason, got 'NL101'; say why"),
        ({"ignore": ["NL101= "]}, "as ID=reason"),
        ({"ignore": ["XY=because"]}, "expected a known rule, got 'XY'"),
    ],
)
def test_refused(how: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        check(small(), **how)


def test_a_script_hides_its_modules() -> None:
    with pytest.raises(NormlabError, match="got a ScriptModule, which hides them; check it before scripting"):
        check(torch.jit.script(small()))


def test_an_optimizer_is_one() -> None:
    with pytest.raises(NormlabError, match="expected the optimizer of the training, got <class"):
        check(small(), optimizer=torch.optim.SGD)  # type: ignore[arg-type]


def test_what_is_no_module() -> None:
    with pytest.raises(NormlabError, match="to check, got a int"):
        check(3)  # type: ignore[arg-type]


def test_rules_that_lack_something_say_so() -> None:
    assert check(small(), select=["NL101"]).unasked == {}
    asked_of_nothing = check(small()).unasked
    assert set(asked_of_nothing.values()) <= {"needs a batch", "needs the optimizer", "needs a backward pass (train)"}
    lazy = nn.Sequential(nn.LazyBatchNorm1d(), nn.ReLU())
    unasked = check(lazy, torch.randn(4, 3)).unasked
    assert any("lazy layer" in why for why in unasked.values()) or not asked_of_nothing
    assert isinstance(lazy[0], nn.LazyBatchNorm1d)


def test_selected_and_ignored() -> None:
    assert check(small(), select=["NL1"]).found == check(small(), select="NL1").found == {"NL101": ["0"]}
    diagnosis = check(small(), ignore=["NL101=the book has it"])
    assert "NL101" not in diagnosis.found
    assert diagnosis.ignored == {"NL101": "the book has it"}
    assert check(nn.ReLU(), ignore=["nl1=none"]).ignored == {}


def test_arguments_by_position_by_name_and_several_batches() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()

        def forward(self, x: Tensor, scale: Tensor) -> dict[str, list[Tensor]]:
            return {"logits": [self.body(x) * scale]}

    x, scale = torch.randn(8, 4), torch.ones(())
    for batch in ((x, scale), {"x": x, "scale": scale}, [(x, scale), {"scale": scale, "x": x}]):
        assert check(Two(), batch, train=True).found.get("NL101") == ["body.0"]

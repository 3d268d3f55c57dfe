"""checkpoint_safe: under torch's own checkpointing, what a training without it does, bit for bit."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from normlab.nn import make_norm, norm_names
from normlab.surgery import checkpoint_safe, freeze

TRACKED = [name for name in norm_names() if getattr(make_norm(name, 4, 2), "track_running_stats", False)]
DEPENDENT = {"renorm"}
"""Their training output depends on the running statistics, which have moved by the recomputation."""


class Checkpointed(nn.Module):
    """A network of which one part, dropout and norms in it, is checkpointed."""

    def __init__(self, norm: nn.Module, reentrant: bool | None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.body = nn.Sequential(
            norm, nn.Sigmoid(), nn.Dropout(0.3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh()
        )
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.body(h) if self.reentrant is None else checkpoint(self.body, h, use_reentrant=self.reentrant)


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(5, 2, 9, 9, generator=generator, dtype=torch.float64) for _ in range(count)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Three steps; the gradients of all of them."""
    gradients = []
    for step, x in enumerate(batches(3)):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        gradients += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    return gradients


def built(norm: nn.Module, reentrant: bool | None) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Checkpointed(copy.deepcopy(norm), reentrant).double()
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["torch", *(name for name in TRACKED if name not in DEPENDENT)])
def test_checkpointed_training_is_training(name: str, reentrant: bool) -> None:
    norm = nn.BatchNorm2d(4) if name == "torch" else make_norm(name, 4, 2)
    plain, optimizer = built(norm, None)
    expected = train(plain, optimizer)
    model, optimizer = built(norm, reentrant)
    keys = [*model.state_dict()]
    changes = checkpoint_safe()(model)
    assert list(changes.done) == ["body.0", "body.4"]
    gradients = train(model, optimizer)
    assert all(torch.equal(one, two) for one, two in zip(gradients, expected, strict=True))
    assert [*model.state_dict()] == keys
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert model.body[4].num_batches_tracked == 3


@pytest.mark.parametrize("name", sorted(DEPENDENT))
def test_what_depends_on_them_moves_them_once_too(name: str) -> None:
    models = [built(make_norm(name, 4, 2), reentrant)[0] for reentrant in (None, True, False)]
    for model in models:
        checkpoint_safe()(model)
        torch.manual_seed(0)
        model(batches(1)[0]).sum().backward()
    for model in models[1:]:
        torch.testing.assert_close(model.state_dict(), models[0].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_without_it_statistics_move_twice_and_undone_they_do_again(reentrant: bool) -> None:
    model, optimizer = built(nn.BatchNorm2d(4), reentrant)
    checkpoint_safe()(model).undo()
    train(model, optimizer)
    assert model.body[0].num_batches_tracked == 6
    assert [type(model.body[index]) for index in (0, 4)] == [nn.BatchNorm2d] * 2


def test_segments_of_a_sequence_too() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh()) for _ in range(4)))
    assert len(checkpoint_safe()(model).done) == 4
    x = torch.randn(6, 3, requires_grad=True)
    checkpoint_sequential(model, 2, x, use_reentrant=False).sum().backward()
    assert [int(part[1].num_batches_tracked) for part in model] == [1] * 4


def test_a_batch_that_is_not_finite_is_counted_once() -> None:
    model, _ = built(make_norm("batch", 4, 2), False)
    checkpoint_safe()(model)
    model(batches(1)[0] * torch.inf).sum().backward()
    assert int(model.body[0].nonfinite_batches) == 1


def test_an_error_in_a_recomputation_leaves_the_buffers() -> None:
    class Fails(nn.BatchNorm1d):
        def forward(self, input: Tensor) -> Tensor:
            y = super().forward(input)
            calls.append(None)
            if len(calls) == 2:
                raise MemoryError
            return y

    calls: list[None] = []
    model = nn.Sequential(Fails(3), nn.Tanh())
    checkpoint_safe()(model)
    y = checkpoint(model, torch.randn(4, 3, requires_grad=True), use_reentrant=False)
    held, before = dict(model[0].named_buffers()), copy.deepcopy(model.state_dict())
    with pytest.raises(MemoryError):
        y.sum().backward()
    assert all(model[0].get_buffer(name) is value for name, value in held.items())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_evaluation_under_checkpointing_is_evaluation() -> None:
    model, _ = built(nn.BatchNorm2d(4), False)
    x = batches(1)[0]
    expected = model.eval()(x)
    checkpoint_safe()(model)
    y = model(x)
    assert torch.equal(y, expected)
    y.sum().backward()


def test_what_is_left_is_named_with_its_reason() -> None:
    model = nn.Sequential(nn.LazyBatchNorm1d(), nn.BatchNorm1d(3), nn.LayerNorm(3), nn.BatchNorm1d(3))
    model[3].track_running_stats, model[3].running_mean, model[3].running_var = False, None, None
    assert list(checkpoint_safe()(model).done) == ["1"]
    assert checkpoint_safe()(model).left == {
        "0": "is lazy and has not seen its first batch: run one through",
        "1": "is safe already",
    }
    assert freeze("averages")(model)

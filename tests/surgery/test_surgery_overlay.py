"""What adapt and checkpoint_safe lay over a layer: copies, pickles and compilers take it; one over another."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from normlab.surgery import adapt, checkpoint_safe
from normlab.surgery.checkpoint_safe import CheckpointSafe
from normlab.surgery.overlay import beneath


def build() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), torch.randn(5, 3)
    model(x + 1)
    adapt(3)(model)
    checkpoint_safe()(model)
    return model.eval(), x


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_and_pickles_behave_the_same(copied) -> None:
    model, x = build()
    other = copied(model[0])
    assert type(other) is type(model[0])
    assert torch.equal(other(x), model[0](x))
    assert [*other.state_dict()] == [*model[0].state_dict()]
    other.source_count = 100.0
    assert not torch.equal(other(x), model[0](x))


@pytest.mark.parametrize("last_first", [True, False])
def test_each_is_taken_off_by_itself(last_first: bool) -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(3)).eval(), torch.randn(5, 3)
    expected = model(x)
    adapted, safe = adapt()(model), checkpoint_safe()(model)
    assert beneath(model[0]) is nn.BatchNorm1d
    by_the_batch = model(x)
    assert not torch.equal(by_the_batch, expected)
    if last_first:
        safe.undo()
        assert torch.equal(model(x), by_the_batch)
        adapted.undo()
    else:
        adapted.undo()
        assert isinstance(model[0], CheckpointSafe)
        assert torch.equal(model(x), expected)
        safe.undo()
    assert type(model[0]) is nn.BatchNorm1d
    assert torch.equal(model(x), expected)


def test_it_compiles_whole() -> None:
    """In a process of its own, where no checker of types stands between the compiler and the layer."""
    script = """
import copy, torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from normlab.nn import BatchNorm2d
from normlab.surgery import adapt, checkpoint_safe
class Checkpointed(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm
    def forward(self, x):
        return checkpoint(self.norm, x.tanh(), use_reentrant=False)
for make in (nn.BatchNorm2d, BatchNorm2d):
    torch.compiler.reset()
    ours = Checkpointed(make(3))
    adapt(2)(ours), checkpoint_safe()(ours)
    twin = copy.deepcopy(ours)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for training in (True, False):
        ours.train(training), twin.train(training)
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(3), requires_grad=True)
        z = x.detach().clone().requires_grad_()
        one, two = compiled(x), twin(z)
        one.pow(3).sum().backward(), two.pow(3).sum().backward()
        torch.testing.assert_close(one, two)
        torch.testing.assert_close(x.grad, z.grad)
    torch.testing.assert_close(ours.state_dict(), twin.state_dict())
    assert ours.norm.num_batches_tracked == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True)

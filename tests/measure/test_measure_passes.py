"""What a pass tells beside the numbers of each tensor."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from normlab.measure.passes import run, summary


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.norm, self.reentrant = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.norm, self.stem(x), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_the_backward_pass_calls_again_is_marked(reentrant: bool):
    model = Checkpointed(reentrant)
    result = run(model, [torch.randn(4, 2, 3, 3)] * 2, training=True, backward=True)
    again = [use.recomputed for use in result.of("norm")]
    assert [use.recomputed for use in result.of("stem")] == [False, False]
    assert again.count(False) == 2
    assert result.held["norm"]["num_batches_tracked"].value == 4
    assert any(again)


def test_the_mode_of_each_layer_is_told():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model[1].eval()
    batch = torch.randn(4, 2)
    assert [use.training for use in run(model, [batch], training=True).uses] == [True, False]
    assert [use.training for use in run(model, [batch], training=False).uses] == [False, False]


def test_what_a_norm_held_is_a_copy_and_its_history_is_told():
    class BatchNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept, self.detached = torch.zeros(2), torch.zeros(2)

        def forward(self, x: Tensor) -> Tensor:
            self.kept, self.detached = x.mean(0), x.mean(0).detach()
            return x - self.kept

    model = nn.Sequential(nn.Linear(2, 2), BatchNorm())
    held = run(model, [torch.randn(4, 2)], training=True, backward=True).held["1"]
    assert (held["kept"].carries_graph, held["detached"].carries_graph) == (True, False)
    torch.testing.assert_close(held["kept"].value, model[1].detached)
    assert not held["kept"].value.requires_grad


def test_the_tail_is_what_ends_a_sequence():
    x = torch.ones(3, 2, 5)
    x[0, :, 3:] = 0
    x[1, 0, 1:] = 0  # the other channel goes on
    x[2] = 0
    x[0, :, 1] = 0  # within
    assert summary(x).tail.tolist() == [2, 0, 5]
    assert summary(x[0]).tail is None


def test_a_parallel_model_is_run_as_what_it_wraps():
    wrapped = nn.DataParallel(nn.Sequential(nn.BatchNorm1d(2)))
    wrapped.device_ids = [0, 1]  # it would refuse a tensor of a CPU
    result = run(wrapped, [torch.randn(4, 2)], training=True)
    assert result.failure is None
    assert [use.path for use in result.uses] == ["module.0"]

"""Ghost batch norm: which examples are normalized together, and what the running statistics see."""

import pytest
import torch

from compare import assert_close
from normlab import nn
from normlab.functional import batch_norm, ghost_batch_norm, instance_norm


def draw(n, *spatial):
    return 3 * torch.randn(n, 4, *spatial, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1


def test_a_ghost_of_the_whole_batch_is_batch_norm():
    x, mean, var = draw(9, 3), torch.zeros(4).double(), torch.ones(4).double()
    for size in (5, 9, 100):
        ours = ghost_batch_norm(x, mean, var, training=True, ghost_size=size)
        assert all(torch.equal(*pair) for pair in zip(ours, batch_norm(x, mean, var, training=True), strict=True))


def test_a_ghost_of_one_example_is_instance_norm():
    x = draw(5, 3, 4)
    assert_close(ghost_batch_norm(x, training=True, ghost_size=1)[0], instance_norm(x))


@pytest.mark.parametrize(("n", "sizes"), [(8, [2, 2, 2, 2]), (9, [3, 2, 2, 2]), (11, [3, 2, 2, 2, 2]), (3, [3])])
def test_parts_are_equal_and_none_is_smaller_than_asked(n, sizes):
    x = draw(n, 3)
    parts = [batch_norm(part, training=True)[0] for part in x.split(sizes)]
    assert torch.equal(ghost_batch_norm(x, training=True, ghost_size=2)[0], torch.cat(parts))


def test_running_statistics_take_up_the_parts_one_after_the_other():
    x, mean, var = draw(9, 3), torch.zeros(4).double(), torch.ones(4).double()
    _, *found = ghost_batch_norm(x, mean, var, training=True, momentum=0.3, ghost_size=3)
    for part in x.split(3):
        _, mean, var = batch_norm(part, mean, var, training=True, momentum=0.3)
    assert_close(found[0], mean)
    assert_close(found[1], var)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_the_layer_is_the_function_and_counts_parts(momentum):
    layer = nn.GhostBatchNorm1d(4, momentum=momentum, ghost_size=3).double()
    x = draw(9, 3)
    y = layer(x)
    parts = x.split(3)
    assert_close(y, ghost_batch_norm(x, training=True, ghost_size=3)[0].requires_grad_())
    assert layer.num_batches_tracked == 3
    if momentum is None:
        assert_close(layer.running_mean, torch.stack([part.mean((0, 2)) for part in parts]).mean(0))
    x[0, 0, 0] = float("nan")
    before = layer.running_mean.clone()
    layer(x)
    assert torch.equal(layer.running_mean, before), "the parts that are finite move nothing either"
    assert (layer.num_batches_tracked, layer.nonfinite_batches) == (3, 3)


def test_a_mask_for_all_examples_is_cut_with_them():
    x = draw(9, 3)
    mask = torch.tensor([[[True, False, True]]])
    y, *_ = ghost_batch_norm(x, training=True, ghost_size=3, mask=mask)
    expected, *_ = ghost_batch_norm(x[..., ::2], training=True, ghost_size=3)
    assert_close(y[..., ::2], expected)
    assert (y[..., 1] == 0).all()


def test_in_half_precision_too_a_part_that_is_not_finite_stops_all():
    layer, x = nn.GhostBatchNorm1d(4, ghost_size=3).bfloat16(), draw(9, 3).bfloat16()
    x[0, 0, 0] = float("nan")
    layer(x)
    assert (layer.running_mean == 0).all()
    assert (layer.running_var == 1).all()

"""How much of its start a running average holds, beside what torch's layer makes of it."""

import pytest
import torch
from torch import nn

from normlab.measure.running import remembered, untrained


@pytest.mark.parametrize("momentum", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("batches", [1, 3, 20])
def test_the_share_is_what_is_left_of_the_start(momentum: float, batches: int):
    norm = nn.BatchNorm1d(1, momentum=momentum, dtype=torch.float64)
    assert untrained(norm)
    for _ in range(batches):
        norm(torch.zeros(4, 1, dtype=torch.float64))  # of variance 0: what is left is of the 1 at the start
    assert norm.running_var.item() == pytest.approx(remembered(norm), rel=1e-12)
    assert not untrained(norm)


def test_nothing_is_remembered_where_nothing_was_counted():
    assert remembered(nn.BatchNorm1d(1)) == 0
    assert remembered(nn.BatchNorm1d(1, momentum=None)) == 0
    assert remembered(nn.BatchNorm1d(1, track_running_stats=False)) == 0
    frozen = nn.BatchNorm1d(1, momentum=0.0)
    frozen(torch.ones(2, 1))
    assert remembered(frozen) == 0
    assert not untrained(nn.BatchNorm1d(1, track_running_stats=False))

"""synchronized: nothing between two processes and one where norms are synchronized, and much where they are not."""

import pytest
import torch
from looks import look
from torch import nn

from normlab.measure import synchronized
from normlab.nn import make_norm
from normlab.train.parallel import alone


def network(norm: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 5), make_norm(norm, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1728, 10))


@pytest.mark.slow
def test_the_difference_is_that_of_the_norms_and_the_same_again() -> None:
    model = network("sync")
    with alone(model):  # as a probe gets it in training
        assert synchronized(0)(look(model)) == {"difference": 0.0}
    found = synchronized(0)(look(network("batch")))
    assert 1e-2 <= found["difference"] <= 10
    assert synchronized(0)(look(network("batch"))) == found

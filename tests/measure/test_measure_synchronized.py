"""synchronized: nothing between two processes and one where norms are synchronized, and much where they are not."""

import pytest
from looks import look
from torch import nn

from normlab.measure import synchronized
from normlab.nn import make_norm


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "low", "high"), [("sync", 0, 1e-12), ("batch", 1e-2, 10)])
def test_the_difference_is_that_of_the_norms(norm: str, low: float, high: float) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 5), make_norm(norm, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1728, 10))
    found = synchronized(0)(look(model))
    assert found.keys() == {"difference"}
    assert low <= found["difference"] <= high

"""What nothing is wrong with is not complained about, before training and with the statistics of its data."""

import pytest
import torch

from normlab import check
from normlab.models import build
from normlab.surgery import recalibrate


@pytest.mark.parametrize("name", ["lenet", "mlp", "resnet8"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_built_in_networks(name: str, mode: bool):
    torch.manual_seed(0)
    model = build(name, {}, input_shape=(1, 28, 28), classes=10, seed=0).train(mode)
    x = torch.rand(8, 1, 28, 28)
    for _ in range(2):
        diagnosis = check(model, x, train=True, select=["NL3", "NL4"])
        assert str(diagnosis) == "nothing found"
        assert set(diagnosis.unasked) == {"NL402", "NL403"}  # which need the optimizer
        recalibrate(model, lambda: [x])

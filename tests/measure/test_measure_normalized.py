"""Whose statistics a batch norm took is told by its output."""

import pytest
import torch
from torch import nn

from normlab.measure.normalized import distance
from normlab.measure.passes import run


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_near_what_was_taken_far_from_the_other(training: bool, affine: bool, dtype: torch.dtype):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, affine=affine)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    model = nn.Sequential(norm.to(dtype))
    running = norm.running_mean.clone(), norm.running_var.clone()
    (use,) = run(model, [(3 + 4 * torch.randn(16, 5, 6, 6)).to(dtype)], training=training).uses
    by_batch, by_running = distance(use, use.input.mean, use.input.var), distance(use, *running)
    taken, other = (by_batch, by_running) if training else (by_running, by_batch)
    assert taken < (5e-2 if dtype == torch.bfloat16 else 1e-5)
    assert other > 0.3


def test_other_arithmetic_is_near_neither():
    class Activated(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).relu()

    (use,) = run(nn.Sequential(Activated(5)), [torch.randn(16, 5, 6, 6)], training=True).uses
    assert distance(use, use.input.mean, use.input.var) > 0.1

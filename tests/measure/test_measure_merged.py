"""Moments of several tensors are those of all their values together."""

import pytest
import torch

from normlab.measure.merged import merged
from normlab.measure.passes import summary


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shapes", [[(4, 3)], [(4, 3), (1, 3)], [(2, 3, 5, 5), (7, 3, 1, 1), (1, 3, 2, 2)]])
def test_as_of_all_values(shapes: list[tuple[int, ...]], dtype: torch.dtype):
    torch.manual_seed(0)
    parts = [100 * index + (index + 1) * torch.randn(shape, dtype=dtype) for index, shape in enumerate(shapes)]
    values = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1).double()
    moments = merged([summary(part) for part in parts])
    assert moments.values == values.shape[1]
    assert moments.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(moments.mean, values.mean(1), **tolerance)
    torch.testing.assert_close(moments.var, values.var(1, correction=0), **tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678, -3e7])
def test_a_constant_is_told_from_the_next_number(value: float, dtype: torch.dtype):
    x = torch.full((64, 2, 7, 7), value, dtype=dtype)
    x[0, 1] += abs(value) * 4e-2 + 1e-3  # one example of 64, in the second channel alone
    assert merged([summary(x)]).constant.tolist() == [True, False]

import pytest
import torch

from compare import TOLERANCE, assert_close


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fails_beyond_the_tolerance_and_only_there(dtype):
    expected = torch.linspace(-1, 1, 7, dtype=torch.float64).to(dtype).double()
    assert_close(expected.to(dtype), expected)
    with pytest.raises(AssertionError):
        assert_close((expected + 4 * TOLERANCE[dtype]).to(dtype), expected)


def test_fails_on_shape_and_on_nan():
    with pytest.raises(AssertionError):
        assert_close(torch.zeros(2), torch.zeros(1))
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([float("nan")]), torch.zeros(1))

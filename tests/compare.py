"""The one place that owns tolerances."""

import torch
from torch import Tensor

# Rounding of a sum of a few thousand terms, and, for bfloat16, of the result.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1.6e-2}


def assert_close(actual: Tensor, expected: Tensor, *, scale: float = 1.0, what: str = "") -> None:
    """`actual` is `expected`, which may be of higher precision, to the rounding of actual's dtype.

    `scale` multiplies the tolerance: the condition number where a law has one.
    """
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    if not actual.is_floating_point():
        assert torch.equal(actual, expected), what
        return
    tolerance = TOLERANCE[actual.dtype] * scale
    size = max(1.0, expected.abs().max().item()) if expected.numel() and expected.isfinite().all() else 1.0
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance * size, equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )  # fmt: skip

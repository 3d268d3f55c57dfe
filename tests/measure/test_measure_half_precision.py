"""half_precision: told apart by how often a layer rounds, on layers whose roundings can be counted."""

import pytest
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.measure.half_precision import HALVES, half_precision


class RMS(nn.Module):
    """y = weight * x / sqrt(mean(x^2) + eps), with everything in `inside`; `late` multiplies after the cast."""

    def __init__(self, width: int, inside: torch.dtype | None = torch.float32, late: bool = False, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
        self.inside, self.late = inside, late

    def forward(self, x: Tensor) -> Tensor:
        h = x.to(torch.float64 if x.dtype == torch.float64 else self.inside or x.dtype)
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return self.weight.to(x.dtype) * h.to(x.dtype) if self.late else (self.weight * h).to(x.dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("width", [4, 256])
def test_roundings_are_counted(width, dtype):
    def roundings(norm: nn.Module) -> float:
        return half_precision(norm.to(dtype), (3, width), dtype).roundings

    for once in (RMS(width), nn.LayerNorm(width), nn.RMSNorm(width, eps=1e-6), nn.GroupNorm(2, width)):
        assert roundings(once) == pytest.approx(1, abs=1e-3)
    assert roundings(RMS(width, late=True)) == pytest.approx(2**0.5, rel=0.05)
    assert roundings(RMS(width, inside=None)) > 3**0.5


def test_a_result_that_needs_no_rounding():
    found = half_precision(nn.LayerNorm(1).half(), (3, 1), torch.float16)
    assert (found.roundings, found.survives_large) == (1, True)


@pytest.mark.parametrize("shape", [(2, 16), (1, 5, 16), (2, 3, 4, 16)])
@pytest.mark.parametrize(
    ("norm", "zeros", "large"),
    [
        (RMS(16, eps=1e-8), True, True),
        (nn.LayerNorm(16, eps=1e-12), True, True),
        (RMS(16, inside=None), True, False),
        (RMS(16, inside=None, eps=1e-8), False, False),
    ],
)
def test_what_float16_does_not_survive(norm, zeros, large, shape):
    found = half_precision(norm.half(), shape, torch.float16)
    assert (found.survives_zeros, found.survives_large) == (zeros, large)
    wide = half_precision(norm.bfloat16(), shape, torch.bfloat16)
    assert wide.survives_zeros
    assert wide.survives_large, "bfloat16 has float32's range"


def test_the_layer_and_the_generator_are_as_before():
    norm = RMS(8).half().train()
    state, weight = torch.get_rng_state(), norm.weight.clone()
    half_precision(norm, (2, 8), torch.float16)
    assert torch.equal(norm.weight, weight)
    assert norm.training
    assert norm.weight.dtype == torch.float16
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "norm", [nn.Linear(8, 3), nn.LayerNorm(8, eps=0)], ids=["another shape", "no answer for zeros"]
)
def test_refused(norm):
    with pytest.raises(NormlabError, match="finite numbers of its input's shape"):
        half_precision(norm.half(), (2, 8), torch.float16)

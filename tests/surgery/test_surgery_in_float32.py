"""in_float32: half precision in and out, float32 between the two."""

import copy

import pytest
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.surgery import in_float32


class Written(nn.Module):
    """An RMS norm that computes in the dtype that it is given."""

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.linspace(0.5, 2, 8)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def build(dtype: torch.dtype) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), Written()).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_the_result_is_that_of_float32_rounded_once(dtype: torch.dtype, scale: float) -> None:
    model = build(dtype)
    x = (torch.randn(5, 8) * scale).to(dtype)
    exact = Written().to(dtype).double()(x.double())
    in_float32(("1",))(model)
    found = model[1](x)
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


def test_gradients_reach_input_and_weight() -> None:
    model, exact = build(torch.bfloat16), Written().double()
    in_float32(("1",))(model)
    x = torch.randn(5, 8).bfloat16().requires_grad_()
    twin = x.detach().double().requires_grad_()
    model[1](x).sum().backward()
    exact(twin).sum().backward()
    assert x.grad.dtype == model[1].weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(model[1].weight.grad.double(), exact.weight.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_is_left_alone(dtype: torch.dtype) -> None:
    model, x = build(dtype), torch.randn(5, 8, dtype=dtype)
    before = model[1](x)
    in_float32(("1",))(model)
    assert torch.equal(model[1](x), before)


def test_the_layer_stays_the_same_and_comes_back() -> None:
    model = build(torch.float16)
    layer, keys = model[1], list(model.state_dict())
    changes = in_float32(["1"])(model)
    assert changes.done == {"1": "computes in float32"}
    assert model[1] is layer
    assert list(copy.deepcopy(model).state_dict()) == keys
    assert in_float32(("1",))(model).left == {"1": "computes in float32 already"}
    changes.undo()
    assert type(model[1]) is Written


def test_an_unknown_path_changes_nothing() -> None:
    model = build(torch.float16)
    with pytest.raises(NormlabError, match="expected the path of a module, got '7'"):
        in_float32(("1", "7"))(model)
    assert type(model[1]) is Written

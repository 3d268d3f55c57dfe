"""param_groups: every trainable parameter once, in the group where it belongs."""

import pytest
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.models import lenet
from normlab.nn import make_norm, norm_names
from normlab.surgery import freeze, param_groups


class LlamaRMSNorm(nn.Module):
    """Somebody's norm, and a matrix of its own that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.mix = nn.Parameter(torch.ones(4, 4))


class NormalizedLinear(nn.Linear):
    """Has "norm" in its name and is none."""


class Tied(nn.Module):
    """One matrix under two names, and one vector that is a norm's and another's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.LayerNorm(4)
        self.scale = self.norm.weight


# Model, and the paths of what is not decayed.
MODELS = {
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        {
            *("self_attn.in_proj_bias", "self_attn.out_proj.bias", "linear1.bias", "linear2.bias"),
            *("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"),
        },
    ),
    "attention with biased keys": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {"in_proj_bias", "bias_k", "bias_v", "out_proj.bias"},
    ),
    "recurrent": (lambda: nn.LSTM(3, 4), {"bias_ih_l0", "bias_hh_l0"}),
    "over images": (lambda: nn.Sequential(nn.LayerNorm((2, 3, 3))), {"0.weight", "0.bias"}),
    "torch's": (
        lambda: nn.Sequential(
            nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.InstanceNorm1d(4, affine=True), nn.SyncBatchNorm(4), nn.PReLU()
        ),
        {"0.weight", "0.bias", "1.weight", "2.weight", "2.bias", "3.weight", "3.bias"},
    ),
    "somebody's": (lambda: nn.Sequential(LlamaRMSNorm(), NormalizedLinear(3, 3)), {"0.weight", "1.bias"}),
    "tied": (Tied, {"scale", "norm.bias"}),
    "wrapped": (lambda: nn.DataParallel(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))),
                {"module.0.bias", "module.1.weight", "module.1.bias"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_norms_and_biases_are_not_decayed_and_all_else_is(name: str) -> None:
    make, spared = MODELS[name]
    model = make()
    named = dict(model.named_parameters())
    paths = {parameter: path for path, parameter in named.items()}
    groups = param_groups(model, weight_decay=0.1, lr=0.5)
    assert {paths[each] for group in groups if group["weight_decay"] == 0 for each in group["params"]} == spared
    assert all(group["weight_decay"] in (0, 0.1) and group["lr"] == 0.5 for group in groups)
    optimizer = torch.optim.AdamW(groups)  # raises where one is in two groups
    assert {each for group in optimizer.param_groups for each in group["params"]} == {*named.values()}
    assert sum(len(group["params"]) for group in groups) == len(named)
    assert groups.left == {}


@pytest.mark.parametrize("name", sorted({*norm_names()} - {"none"}))
def test_nothing_of_any_norm_of_ours_is_decayed(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), make_norm(name, 4, 2))
    groups = param_groups(model, weight_decay=0.1)
    assert [id(each) for each in groups[0]["params"]] == [id(model[0].weight)]
    assert len(groups[1]["params"]) == 1 + len([*model[1].parameters()])


def test_decay_then_moves_weights_and_no_others() -> None:
    model = lenet(seed=0)
    before = {path: value.detach().clone() for path, value in model.named_parameters()}
    optimizer = torch.optim.SGD(param_groups(model, weight_decay=0.5, lr=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for path, value in model.named_parameters():
        decays = path.endswith("weight") and not path.startswith("norm")
        assert torch.equal(value, before[path] * 0.75 if decays else before[path]), path


def test_frozen_ones_are_left_out_and_said() -> None:
    model = lenet(seed=0)
    freeze("gamma")(model)
    groups = param_groups(model, weight_decay=0.1)
    assert groups.left == {f"norm{index}.weight": "takes no gradient" for index in range(1, 5)}
    held: list[Tensor] = [each for group in groups for each in group["params"]]
    assert len(held) == len([*model.parameters()]) - 4
    model.requires_grad_(False)
    assert param_groups(model, weight_decay=0.1) == []


@pytest.mark.parametrize(
    ("make", "weight_decay", "message"),
    [
        (lenet, -0.1, "a weight decay of 0 or more"),
        (lenet, float("nan"), "a weight decay of 0 or more"),
        (lambda: nn.Sequential(nn.LazyBatchNorm1d()), 0.1, "run a batch through"),
    ],
)
def test_mistakes_are_named(make, weight_decay: float, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        param_groups(make(), weight_decay)

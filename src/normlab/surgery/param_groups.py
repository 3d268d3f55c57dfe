"""param_groups: an optimizer's parameters, without weight decay on those of norms and on biases.

A norm's gamma and beta are a scale and a shift that nothing else in the network makes up for; to decay them towards
0 is to change the function, where that of a weight before a norm is not changed at all (pytorch#1402; Goyal et al.
2017, arXiv 1706.02677, section 5.1; He et al. 2019, arXiv 1812.01187, section 3.1, "no bias decay").
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from normlab.errors import NormlabError
from normlab.surgery.find import NORMS, is_shapeless


class ParamGroups(list[dict[str, Any]]):
    """What an optimizer takes; `left` is the path of each parameter that is in no group, and why."""

    def __init__(self, groups: list[dict[str, Any]], left: dict[str, str]) -> None:
        super().__init__(groups)
        self.left = left


def param_groups(model: nn.Module, weight_decay: float, **options: Any) -> ParamGroups:
    """`torch.optim.AdamW(param_groups(model, weight_decay=0.05, lr=1e-3))`: two groups, the second not decayed.

    Every trainable parameter is in exactly one of them, in the model's order. Not decayed are all parameters of
    norms, torch's and ours, those of one number per channel in other classes with "norm" in their name, and whatever
    is called a bias. One that several modules share is not decayed where any of them is a norm or has it for a bias.

    Args:
        model: any.
        weight_decay: of the first group; finite, >= 0.
        options: further options of the optimizer, for both groups.

    Returns:
        The groups that are not empty; `left` names frozen parameters, which take no gradient.

    Raises:
        NormlabError: a weight decay below 0, or a lazy layer that has not seen its first batch: what stands in for
            its parameters cannot be told apart by shape.

    """
    if not 0 <= weight_decay < float("inf"):
        raise NormlabError("a weight decay of 0 or more", weight_decay)
    if is_shapeless(model):
        raise NormlabError("layers of a known width", "a lazy one in the model", "run a batch through")
    spared = set(_spared(model))
    named = dict(model.named_parameters())
    trained = [parameter for parameter in named.values() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if each not in spared], "weight_decay": weight_decay, **options},
        {"params": [each for each in trained if each in spared], "weight_decay": 0.0, **options},
    ]
    left = {path: "takes no gradient" for path, parameter in named.items() if not parameter.requires_grad}
    return ParamGroups([group for group in groups if group["params"]], left)


def _spared(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of norms, and biases."""
    for module in model.modules():
        norm, named_norm = isinstance(module, NORMS), "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            per_channel = sum(size > 1 for size in parameter.shape) <= 1
            if norm or (named_norm and per_channel) or _is_bias(name):
                yield parameter


def _is_bias(name: str) -> bool:
    """`bias` of most layers, `bias_ih_l0` of recurrent ones, `in_proj_bias` of attention."""
    return name == "bias" or name.startswith("bias_") or name.endswith("_bias")

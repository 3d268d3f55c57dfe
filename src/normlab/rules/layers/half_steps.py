"""NL516."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from normlab.measure.half_precision import HALVES
from normlab.measure.norms import Norm
from normlab.rules.facts import Unknown
from normlab.rules.rule import Found, Rule

BOUNDED = (torch.optim.Adam, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam)
"""Optimizers whose step is about as large as the learning rate, and seldom larger: Kingma & Ba 2015, arXiv 1412.6980,
section 2.1. AdamW is an Adam.
"""


class HalfSteps(Rule):
    """The weights of a norm begin at 1, and the number next to 1 in bfloat16 is 0.996. An optimizer like Adam moves
    every weight by about the learning rate; where that is less than half of the distance to the next number, the sum
    is rounded back, and the weight stays where it is for ever. Matrices, whose entries are small, do move: only the
    norms are frozen, and nothing tells.
    """

    id = "NL516"
    severity = "warning"
    title = "norm weights in half precision that the learning rate cannot move"
    source = "Zamirai et al. 2020, arXiv 2010.06192, section 3: updates below half a unit in the last place are lost"
    remedy = "keep the parameters in float32 and compute under torch.autocast, or round stochastically"

    def check(self, example_norms: dict[str, Norm], optimizer: Optimizer | None) -> Iterator[Found]:
        if optimizer is None:
            raise Unknown("needs the optimizer")
        if not isinstance(optimizer, BOUNDED):
            return
        rates = {
            parameter: max(float(group["lr"]), float(group.get("initial_lr", 0)))  # a schedule may begin at 0
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        halves = {
            path: norm.weight
            for path, norm in example_norms.items()
            if norm.weight is not None and norm.weight.dtype in HALVES and norm.weight in rates
        }
        stuck = [path for path, weight in halves.items() if _is_stuck(weight, rates[weight])]
        if stuck:
            weight = halves[stuck[0]]
            kind, size = str(weight.dtype).removeprefix("torch."), weight.detach().abs().mean().item()
            told = f"{len(stuck)} of {len(halves)} norms, the first is {stuck[0]}"
            yield "", f"{told}: of weights of size {size:.3g} {kind} cannot tell the learning rate {rates[weight]:g}"


def _is_stuck(weight: Tensor, rate: float) -> bool:
    """Whether a step of this size is rounded away at most of the numbers."""
    return (rate < _half_steps(weight)).double().mean().item() > 0.5


def _half_steps(weight: Tensor) -> Tensor:
    """Half of the distance of each number to the next one towards 0; 0 has a next one near enough."""
    fraction, exponent = torch.frexp(weight.detach().abs().double())
    spacing = torch.ldexp(torch.full_like(fraction, torch.finfo(weight.dtype).eps / 2), exponent)
    # Below a power of two they are twice as dense.
    return torch.where(fraction == 0.5, spacing / 4, spacing / 2) * (fraction > 0)

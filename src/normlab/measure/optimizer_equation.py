"""optimizer_equation: gamma and beta are updated by the equation of any weight, to the last bit.

Dive into Deep Learning, batch normalization: "how are gamma and beta updated?"
"""

import dataclasses

import torch
from torch import Tensor, nn

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, copy_of
from normlab.surgery.find import BatchNorm
from normlab.surgery.flow import Affine


@dataclasses.dataclass(frozen=True)
class optimizer_equation(Reading):
    """One step of torch's fused SGD, at the recipe's learning rate, on a copy: how many elements of each kind it
    does not set to `p - lr * gradient`, bit for bit.

    Kinds are "gamma", "beta" and "weight" (of conv and linear layers): `{kind} mismatches`, `{kind} elements`.
    """

    def __call__(self, look: Look) -> dict[str, float]:
        model = copy_of(look.model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        before = {parameter: parameter.detach().clone() for parameter in trained}
        optimizer = torch.optim.SGD(trained, lr=look.recipe.lr, fused=True)
        look.loss(model(look.x), look.y).backward()
        optimizer.step()
        found: dict[str, float] = {}
        for kind, parameters in _by_kind(model).items():
            stepped = [p for p in parameters if p in before and p.grad is not None]
            wrong = [mismatches(before[p], p.grad, p.detach(), look.recipe.lr) for p in stepped]  # type: ignore[arg-type]
            found[f"{kind} mismatches"] = float(sum(wrong))
            found[f"{kind} elements"] = float(sum(p.numel() for p in stepped))
        return found


def mismatches(before: Tensor, gradient: Tensor, after: Tensor, lr: float) -> int:
    """Elements, of tensors of one shape, at which `after` is not `before - lr * gradient`, bit for bit.

    The product is not rounded before the difference is taken where the processor has such an instruction (fma):
    torch.add uses it, as the optimizer does; `before - lr * gradient`, typed, rounds twice.
    """
    return int((torch.add(before, gradient, alpha=-lr) != after).sum())


def _by_kind(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    kinds: dict[str, list[nn.Parameter]] = {"gamma": [], "beta": [], "weight": []}
    for layer in model.modules():
        names = {"weight": "gamma", "bias": "beta"} if isinstance(layer, BatchNorm) else {"weight": "weight"}
        if isinstance(layer, (BatchNorm, *Affine)):
            for name, parameter in layer.named_parameters(recurse=False):
                if name in names:
                    kinds[names[name]].append(parameter)
    return kinds

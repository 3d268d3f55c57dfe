"""NL403."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from normlab.measure.norms import Norm
from normlab.rules.mending import at
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, regroup


class NotOptimized(Rule):
    """The parameters of this norm take a gradient, and the optimizer does not know them: they stay what they are,
    while the layers beside them train. It happens where norms were exchanged after the optimizer was built, and
    where parameters were sorted into groups by their names or shapes.
    """

    id = "NL403"
    severity = "warning"
    title = "gamma and beta that the optimizer does not know"
    source = "torch.optim, constructing an optimizer"
    remedy = "build the optimizer after the model is complete, of model.parameters() or normlab.surgery.param_groups"

    def check(
        self, model: nn.Module, optimized: dict[Tensor, dict[str, Any]], norms: dict[str, Norm]
    ) -> Iterator[Found]:
        own = {id(each) for norm in norms.values() for each in (norm.weight, norm.bias)}
        for path, norm in norms.items():
            held = [
                each for each in (norm.weight, norm.bias) if isinstance(each, nn.Parameter) and each.requires_grad
            ]
            missing = [each for each in held if each not in optimized]
            if not missing:
                continue
            # A part that is left out as a whole is left out on purpose: the layers beside the norm tell.
            around = model.get_submodule(path.rpartition(".")[0])
            beside = [each for each in around.parameters() if id(each) not in own and each.requires_grad]
            known = sum(each in optimized for each in beside)
            if known:
                yield (
                    path,
                    f"{len(missing)} of its {len(held)} parameters are in no group of the optimizer, which has "
                    f"{known} of the {len(beside)} beside it",
                )

    def mend(self, paths: Sequence[str], optimizer: Optimizer, optimized: dict[Tensor, dict[str, Any]]) -> Surgery:
        def missing(norm: nn.Module) -> list[nn.Parameter]:
            return [each for each in norm.parameters(recurse=False) if each.requires_grad and each not in optimized]

        return at(tuple(paths), lambda norm: lambda _: regroup(optimizer, missing(norm), weight_decay=0.0))

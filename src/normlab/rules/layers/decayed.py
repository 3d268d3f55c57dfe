"""NL517."""

from collections.abc import Iterator, Sequence

from torch.optim import Optimizer

from normlab.measure.norms import Norm
from normlab.rules.facts import Unknown
from normlab.rules.mending import undecayed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class Decayed(Rule):
    """Weight decay pulls the weight of a norm to 0, and with it the scale of what the layer hands on, whatever the
    data say; a weight of a norm has no matrix to keep small behind it. The recipes of transformers leave the
    parameters of norms, and biases, out of the decay. Of RMS norms written for (1 + weight) it pulls to 1, which
    is harmless.
    """

    id = "NL517"
    severity = "note"
    title = "weight decay on the parameters of layer, RMS or group norms"
    source = "BERT's optimization.py, which leaves LayerNorm and bias out; pytorch issue 1402"
    remedy = "two groups of parameters: torch.optim.AdamW(normlab.surgery.param_groups(model, weight_decay=...))"

    def check(self, example_norms: dict[str, Norm], optimizer: Optimizer | None) -> Iterator[Found]:
        if optimizer is None:
            raise Unknown("needs the optimizer")
        decays = {
            parameter: float(group.get("weight_decay", 0))
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        decayed = {
            path: max(decays.get(held, 0.0) for held in (norm.weight, norm.bias) if held is not None)
            for path, norm in example_norms.items()
            if norm.weight is not None or norm.bias is not None
        }
        found = {path: decay for path, decay in decayed.items() if decay}
        if found:
            first = next(iter(found))
            yield (
                "",
                f"{len(found)} of {len(decayed)} norms decay, the first is {first}, by {found[first]:g}; expected 0",
            )

    def mend(self, paths: Sequence[str], optimizer: Optimizer, example_norms: dict[str, Norm]) -> Surgery:
        return undecayed(optimizer, example_norms)

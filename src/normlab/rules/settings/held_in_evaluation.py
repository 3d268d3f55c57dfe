"""NL207."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.mending import at, frozen
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class HeldInEvaluation(Rule):
    """A norm put into evaluation mode by its own eval() is frozen until somebody calls train() on the model, as most
    training loops do at every epoch: then it trains by the batch, and its statistics move, without a word.
    """

    id = "NL207"
    severity = "note"
    title = "a norm frozen by eval(), which the next model.train() undoes"
    source = "torch.nn.Module.train, which sets the mode of every module in it; He et al. 2017, arXiv 1703.06870"
    remedy = "normlab.surgery.freeze('statistics')(model), which outlasts model.train(); or override train()"
    study = "averages"

    def check(self, model: nn.Module, averaging_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in averaging_norms.items():
            if model.training and not norm.module.training and not _keeps_its_modes(model, path):
                yield path, "is in evaluation mode in a model in train mode: the next model.train() takes that back"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return at(tuple(paths), frozen)


def _keeps_its_modes(model: nn.Module, path: str) -> bool:
    """Whether a module on the way to the norm, or the norm, has a train() of its own."""
    names = path.split(".")
    holders = [model, *(model.get_submodule(".".join(names[:end])) for end in range(1, len(names) + 1))]
    return any(getattr(holder.train, "__func__", None) is not nn.Module.train for holder in holders)

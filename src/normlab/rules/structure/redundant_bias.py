"""NL101."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.rules.rule import Found, Rule
from normlab.surgery import Changes, Surgery
from normlab.surgery.bias import remove_biases
from normlab.surgery.find import FROZEN
from normlab.surgery.flow import fed_by


class RedundantBias(Rule):
    """In training the mean of the batch takes off whatever constant the layer before it adds, so that this bias
    changes nothing, gets a gradient of zero, and is moved by weight decay alone.
    """

    id = "NL101"
    severity = "note"
    title = "a bias that the batch norm behind it takes off again"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2"
    remedy = "normlab.surgery.remove_bias()(model), which is exact; or bias=False where the layer is made"
    study = "bias"

    def check(self, model: nn.Module) -> Iterator[Found]:
        pairs, _ = fed_by(model)
        for norm, path in pairs.items():
            bias, behind = model.get_submodule(path).bias, model.get_submodule(norm)
            # By running statistics it is a shift as any other, and trains.
            by_batch = not isinstance(behind, FROZEN) and (behind.training or not model.training)
            if isinstance(bias, nn.Parameter) and by_batch and getattr(behind, "absorbs_bias", True):
                yield path, f"its bias, {bias.numel()} numbers, is taken off again by {norm}"

    def mend(self, paths: Sequence[str]) -> Surgery:
        def remove(model: nn.Module) -> Changes:
            pairs, _ = fed_by(model)
            return remove_biases(model, {norm: path for norm, path in pairs.items() if path in paths})

        return remove

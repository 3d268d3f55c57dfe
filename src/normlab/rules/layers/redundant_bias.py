"""NL506."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm, is_by_channel
from normlab.rules.mending import changed, no_bias
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.flow import Affine, Link


class RedundantBias(Rule):
    """An instance norm takes off the mean of every channel, and with it whatever constant the layer before it adds to
    that channel: this bias changes nothing and gets a gradient of zero. (Behind a layer norm a bias is not redundant:
    there the mean goes over the channels, and the differences between their biases stay.)
    """

    id = "NL506"
    severity = "note"
    title = "a bias that the instance norm behind it takes off again"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2, which holds for any mean over a channel"
    remedy = "bias=False where the layer is made"
    study = "bias"

    def check(self, model: nn.Module, example_norms: dict[str, Norm], flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            source = model.get_submodule(link.source)
            if link.shared or not isinstance(source, Affine) or source.bias is None:
                continue
            if link.target in example_norms and is_by_channel(example_norms[link.target].module):
                yield link.source, f"its bias, {source.bias.numel()} numbers, is taken off again by {link.target}"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), no_bias)

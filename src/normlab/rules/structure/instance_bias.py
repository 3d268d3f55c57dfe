"""NL102."""

from collections.abc import Iterator

from torch import nn

from normlab.rules.rule import Found, Rule


class InstanceBias(Rule):
    """Instance norm takes the mean off every channel of every example, and with it whatever constant the
    convolution before it adds. The bias changes nothing in training or evaluation, gets a gradient of zero, and is
    moved by weight decay alone. (A popular GAN code base switches the bias on for just this norm; it does nothing.)
    """

    id = "NL102"
    severity = "note"
    title = "a bias that the instance norm behind it takes off again"
    source = "Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022, section 2, equation 4"
    remedy = "bias=False where the convolution is made"
    study = "bias"

    def check(self, model: nn.Module, pairs: dict[str, str]) -> Iterator[Found]:
        for target, source in pairs.items():
            norm, conv = model.get_submodule(target), model.get_submodule(source)
            if (
                isinstance(norm, nn.modules.instancenorm._InstanceNorm)
                and not norm.track_running_stats  # by which evaluation normalizes, whatever comes in
                and isinstance(conv, nn.modules.conv._ConvNd)
                and conv.bias is not None
            ):
                yield source, f"its bias, {conv.bias.numel()} numbers, is taken off again by {target}"

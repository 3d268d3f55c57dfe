"""NL504."""

from collections.abc import Iterator

from torch import nn

from normlab.rules.rule import Found, Rule
from normlab.surgery.flow import Link

CONVOLUTIONS = {
    nn.Conv1d: 1,
    nn.Conv2d: 2,
    nn.Conv3d: 3,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 2,
    nn.ConvTranspose3d: 3,
}
"""To the dimensions behind the channels."""
FORWARDS = (nn.LayerNorm.forward, nn.RMSNorm.forward)
"""Libraries derive layers from these that move the channels to the end and back; theirs are others."""


class WrongDimension(Rule):
    """torch.nn.LayerNorm normalizes the last dimensions of its input. What a convolution gives has its channels
    first, so that a layer norm of as many features as the image is wide normalizes each row of pixels by itself, with
    a weight for each column, and mixes no channels; nothing complains as long as the sizes agree.
    """

    id = "NL504"
    severity = "warning"
    title = "a layer norm behind a convolution that leaves out the channels"
    source = "torch.nn.LayerNorm: normalized_shape is that of the last dimensions"
    remedy = "normlab.nn.LayerNorm2d(channels), or move the channels to the end before the norm"

    def check(self, model: nn.Module, flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            behind = CONVOLUTIONS.get(type(model.get_submodule(link.source)))
            norm = model.get_submodule(link.target)
            if (
                behind is None
                or not isinstance(norm, nn.LayerNorm | nn.RMSNorm)
                or type(norm).forward not in FORWARDS
            ):
                continue
            if (covered := len(norm.normalized_shape)) <= behind:
                told = f"normalizes the last {covered} dimension(s) of what {link.source} gives"
                yield link.target, f"{told}, which has its channels before the last {behind}"

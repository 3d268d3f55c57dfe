"""NL505."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.mending import exchanged
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery

IMAGE = 3
"""Dimensions of one: channels, height, width."""


class FixedResolution(Rule):
    """A layer norm over (C, H, W) has a weight and a bias for every position, so that it takes images of one size
    alone, and its parameters, one set a pixel, can outnumber those of the convolution before it. A shift of the image
    is no longer a shift of what comes out.
    """

    id = "NL505"
    severity = "note"
    title = "a layer norm that ties the network to one resolution"
    source = "Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 6.7"
    remedy = "normlab.nn.LayerNorm2d(channels) or GroupNorm(1, channels): the same statistics, one weight a channel"

    def check(self, example_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in example_norms.items():
            if isinstance(norm.module, nn.LayerNorm) and len(norm.module.normalized_shape) >= IMAGE:
                shape = tuple(norm.module.normalized_shape)
                held = sum(each.numel() for each in norm.module.parameters())
                told = f"takes {shape} alone, and holds {held} parameters"
                yield path, f"{told}; one weight and one bias a channel would be {2 * shape[-IMAGE]}"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return exchanged(tuple(paths), "layer")

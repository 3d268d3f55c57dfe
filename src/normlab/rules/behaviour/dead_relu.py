"""NL310."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.merged import values_per_channel
from normlab.measure.passes import Pass
from normlab.rules.rule import Found, Rule

SHARE = 0.9
"""Of the channels. Where the examples resemble each other, as behind many layers at the start, half are closed."""
CHANNELS = 16
"""Of fewer, as in a squeeze, all can be closed by chance."""
ENOUGH = 8
"""Values per channel."""


class DeadReLU(Rule):
    """A ReLU channel that is zero at every position of every example passes no gradient: the weights before it
    never move again. It happens after a step too large, or with a beta far below zero. Right behind a batch norm
    with beta near zero it cannot: half of the values are above the mean.
    """

    id = "NL310"
    severity = "warning"
    title = "ReLU channels that never open"
    source = "Lu et al. 2019, arXiv 1903.06733; Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2"
    remedy = "a smaller learning rate or another start, a batch norm before the ReLU, or a leaky ReLU"

    def check(self, training: Pass) -> Iterator[Found]:
        told = set()
        for use in training.uses:
            y = use.output
            if not isinstance(use.module, nn.ReLU | nn.ReLU6) or y is None or y.zeros is None or use.path in told:
                continue
            channels = len(y.zeros)
            share = (y.zeros == 1).double().mean().item()
            if channels >= CHANNELS and values_per_channel(y.shape) >= ENOUGH and share >= SHARE:
                told.add(use.path)
                yield use.path, f"{share:.0%} of its {channels} channels are zero for the whole batch"

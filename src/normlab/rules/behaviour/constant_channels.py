"""NL309."""

from collections.abc import Iterator

from normlab.measure.merged import Moments
from normlab.rules.rule import Found, Rule

SHARE = 0.5
"""Of the channels. Trained networks hold a few that have died; half of them is a fault further up."""
ENOUGH = 8
"""Values per channel, below which equal ones can be chance."""


class ConstantChannels(Rule):
    """A channel that has the same value everywhere in the batch has variance 0: batch norm turns it into beta, its
    gamma learns nothing, and no gradient passes. Where that is true of most channels, something before the norm is
    dead: ReLUs that never open, weights of zero, or an input that is blank.
    """

    id = "NL309"
    severity = "warning"
    title = "most channels are constant over the batch"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1; Lu et al. 2019, arXiv 1903.06733 (dying ReLU)"
    remedy = "look at the layers before it: their initial weights, the learning rate, the preprocessing of the input"

    def check(self, batch_inputs: dict[str, Moments]) -> Iterator[Found]:
        for path, batch in batch_inputs.items():
            if batch.values < ENOUGH:
                continue
            share = batch.constant.double().mean().item()
            if share >= SHARE:
                yield (
                    path,
                    f"{share:.0%} of its {len(batch.mean)} input channels are constant over {batch.values} values; "
                    "next to none is expected",
                )

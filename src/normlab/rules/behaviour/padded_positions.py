"""NL313."""

from collections.abc import Iterator

from normlab.measure.passes import Use
from normlab.rules.rule import Found, Rule

SHARE = 0.1
"""Of the positions."""
CHANNELS = 4
"""Of fewer, all are zero at the end often enough by chance, behind a ReLU."""


class PaddedPositions(Rule):
    """Sequences of different lengths are filled up with zeros, and batch norm takes these for data: they pull the
    mean towards 0 and the variance with it, the more the shorter the others of the batch are, so that an example's
    output depends on how far it was padded.
    """

    id = "NL313"
    severity = "warning"
    title = "padding enters the statistics"
    source = "github.com/pytorch/pytorch/issues/70529"
    remedy = "normlab.nn.BatchNorm1d takes a mask: norm(x, mask), True where an element counts"

    def check(self, batch_uses: dict[str, list[Use]]) -> Iterator[Found]:
        for path, uses in batch_uses.items():
            for use in uses:
                x, y = use.input, use.output
                if x is None or x.tail is None or y is None or y.tail is None or x.shape[1] < CHANNELS:
                    continue
                share = x.tail.sum().item() / (x.shape[0] * x.shape[2])
                masked = bool((x.tail == y.tail).all())  # what a mask drops is zero in the output too
                if share > SHARE and not masked and len(x.tail.unique()) > 1:
                    yield (
                        path,
                        f"{share:.0%} of its positions are zeros at the ends of sequences, between "
                        f"{int(x.tail.min())} and {int(x.tail.max())} of {x.shape[2]} for an example",
                    )
                    break

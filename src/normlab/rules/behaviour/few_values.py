"""NL303."""

from collections.abc import Iterator

from normlab.measure.merged import values_per_channel
from normlab.measure.passes import Use
from normlab.rules.rule import Found, Rule

FEW = 8
"""A variance estimated from n Gaussian values is off by sqrt(2 / (n - 1)) of it: by half here."""


class FewValues(Rule):
    """Statistics of a handful of values are mostly noise: training normalizes each batch by other numbers, and
    evaluation by none of them. What this norm sees has few positions, or the batch has few examples. If the batches
    of the training are larger than the one checked, this is no matter.
    """

    id = "NL303"
    severity = "note"
    title = "batch statistics of a handful of values"
    source = "Wu & He 2018, arXiv 1803.08494, figure 1; Ioffe 2017, arXiv 1702.03275, section 1"
    remedy = "larger batches, normlab.surgery.synchronize() over processes, or normlab.surgery.swap('batch', 'group')"

    def check(self, batch_uses: dict[str, list[Use]]) -> Iterator[Found]:
        for path, uses in batch_uses.items():
            shapes = [use.input.shape for use in uses if use.input and len(use.input.shape) > 1]
            if shapes and (values := values_per_channel(smallest := min(shapes, key=values_per_channel))) < FEW:
                yield path, f"{values} values per channel, of an input {smallest}; at least {FEW} are expected"

"""NL302."""

from collections.abc import Iterator

from normlab.measure.merged import values_per_channel
from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.rule import Found, Rule


class OneValue(Rule):
    """A variance needs two values at least. Where images have been pooled to one pixel, or behind linear layers, an
    example gives one value per channel, so that a batch of one raises an error: often the last batch of an epoch.
    """

    id = "NL302"
    severity = "error"
    title = "one value per channel: this batch cannot be trained on"
    source = "github.com/pytorch/pytorch/issues/4534; Chen et al. 2017, arXiv 1706.05587, section 3.3"
    remedy = "larger batches, drop_last=True in the DataLoader, or group norm: normlab.surgery.swap('batch', 'group')"

    def check(self, tried: Pass, evaluation: Pass, batch_norms: dict[str, Norm]) -> Iterator[Found]:
        if tried.failure is None or "more than 1 value per channel" not in tried.failure:
            return
        shapes = {use.path: use.input.shape for use in evaluation.uses if use.path in batch_norms and use.input}
        for path, shape in shapes.items():
            if len(shape) > 1 and values_per_channel(shape) == 1:
                yield path, f"its input of shape {shape} has one value per channel; training needs two at least"

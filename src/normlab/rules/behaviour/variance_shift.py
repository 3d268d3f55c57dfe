"""NL315."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.passes import Pass, Use
from normlab.rules.rule import Found, Rule
from normlab.surgery.flow import Affine, Link

SHIFT = 0.5
"""The variance in evaluation over that in training. A tenth dropped behind a ReLU leaves 0.85, a half leaves 0.4."""


class VarianceShift(Rule):
    """Dropout adds variance in training that is gone in evaluation. A batch norm behind the next layer keeps the
    larger one in its running statistics, divides by it in evaluation, and gives what is too small to the layers
    behind: the more is dropped, and the more norms follow each other, the more so.
    """

    id = "NL315"
    severity = "note"
    title = "dropout before a batch norm: evaluation sees a smaller variance than training"
    source = "Li, Chen, Hu & Yang 2018, arXiv 1801.05134, section 3"
    remedy = "drop less, or only behind the last batch norm: normlab.surgery.dropout"
    study = "dropout"

    def check(
        self, model: nn.Module, training: Pass, flow: list[Link], batch_uses: dict[str, list[Use]]
    ) -> Iterator[Found]:
        feeds = {link.target: link.source for link in flow}
        for path in batch_uses:
            between = feeds.get(path)
            dropout = feeds.get(between) if between is not None else None
            if between is None or dropout is None or not isinstance(model.get_submodule(between), Affine):
                continue  # right behind the dropout, where it stands tells already
            if not isinstance(model.get_submodule(dropout), nn.modules.dropout._DropoutNd):
                continue
            ratio = _kept(training, dropout)
            if ratio < SHIFT:
                yield (
                    path,
                    f"without {dropout} evaluation has {ratio:.2g} of the variance of training here, through "
                    f"{between}; about 1 is expected",
                )


def _kept(training: Pass, dropout: str) -> float:
    """The variance of a dropout's inputs over that of its outputs, summed over the channels: what a layer with
    independent weights hands on.
    """
    before = after = 0.0
    for use in training.of(dropout):
        x, y = use.input, use.output
        if x is not None and y is not None and x.var is not None and y.var is not None:
            before, after = before + x.var.sum().item(), after + y.var.sum().item()
    return before / after if after > 0 else 1.0

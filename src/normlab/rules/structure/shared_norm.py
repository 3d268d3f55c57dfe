"""NL103."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, unshare
from normlab.surgery.find import BatchNorm
from normlab.surgery.flow import Link


class SharedNorm(Rule):
    """A batch norm has one pair of running statistics. Used behind several layers it normalizes each of them well
    in training, by the batch at hand, while the statistics become an average over all of them, which fits none: in
    evaluation the network is another one. An activation may be used again and again, a norm may not.
    """

    id = "NL103"
    severity = "warning"
    title = "one batch norm behind several layers: its running statistics fit none of them"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 2, which keeps statistics for each activation"
    remedy = "make one batch norm for every place; for several kinds of data, normlab.nn.DomainBatchNorm2d"
    recalibrates = True

    def check(self, model: nn.Module, flow: list[Link]) -> Iterator[Found]:
        feeders: dict[nn.Module, dict[nn.Module, str]] = {}
        places: dict[nn.Module, str] = {}
        for link in flow:
            norm = model.get_submodule(link.target)
            if isinstance(norm, BatchNorm):
                places.setdefault(norm, link.target)
                feeders.setdefault(norm, {}).setdefault(model.get_submodule(link.source), link.source)
        for norm, sources in feeders.items():
            if len(sources) > 1:
                said = ", ".join(sources.values())
                yield places[norm], f"is used behind {len(sources)} layers, {said}, with one pair of statistics"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return unshare(tuple(paths))

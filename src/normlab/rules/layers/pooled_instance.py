"""NL503."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.norms import Norm, is_by_channel
from normlab.rules.rule import Found, Rule
from normlab.surgery.flow import Link

POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


class PooledInstance(Rule):
    """An instance norm gives every channel of every image the mean 0, plus its bias. A global average pooling behind
    it takes just that mean: what comes out is the bias, the same for every image, and whatever reads it learns
    nothing. With an activation between the two there is something left.
    """

    id = "NL503"
    severity = "error"
    title = "an instance norm whose mean is all that is read of it"
    source = "Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022: the mean over positions is taken off"
    remedy = "put the activation between the norm and the pooling, or another norm in its place"

    def check(self, model: nn.Module, example_norms: dict[str, Norm], flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            pool = model.get_submodule(link.target)
            if link.source not in example_norms or not isinstance(pool, POOLS):
                continue
            sizes = pool.output_size if isinstance(pool.output_size, tuple) else (pool.output_size,)
            if set(sizes) == {1} and is_by_channel(example_norms[link.source].module):
                yield link.source, f"{link.target} averages over all positions, which gives the norm's bias alone"

"""NL308."""

from collections.abc import Iterator

from normlab.measure.passes import Pass
from normlab.rules.rule import Found, Rule


class StatisticsGraph(Rule):
    """A running average that is computed from the batch inside the autograd graph carries the history of its step,
    and through the average before it that of every step: memory grows with each of them, and the model can no
    longer be deep-copied. A layer that somebody wrote by hand must detach what it keeps.
    """

    id = "NL308"
    severity = "error"
    title = "running statistics that keep every step's graph alive"
    source = "d2l.ai, batch normalization: moving_mean.data; github.com/d2l-ai/d2l-en/issues/1342"
    remedy = "keep statistic.detach(), or take normlab.nn.BatchNorm2d, whose statistics carry no graph"
    study = "returned-statistics"

    def check(self, backward: Pass) -> Iterator[Found]:
        for path, held in backward.held.items():
            names = [name for name, each in held.items() if each.carries_graph]
            if names:
                yield path, f"after a training step {', '.join(names)} carries autograd history; none is expected"

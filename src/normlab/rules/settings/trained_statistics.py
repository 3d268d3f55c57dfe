"""NL214."""

from collections.abc import Iterator, Sequence

from normlab.rules.facts.statistics import Statistic
from normlab.rules.mending import registered
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class TrainedStatistics(Rule):
    """Running statistics are averages; no gradient is to reach them. As parameters they are moved by the optimizer
    and by its weight decay. Computed from the batch inside the graph they keep the graph of every step so far alive:
    memory grows until there is none, and a copy of the model fails.
    """

    id = "NL214"
    severity = "error"
    title = "running statistics that require a gradient"
    source = "github.com/d2l-ai/d2l-en/issues/1342; github.com/pytorch/pytorch/issues/20275"
    remedy = "register_buffer instead of nn.Parameter; .detach() the batch's statistics before they are averaged"
    study = "returned-statistics"

    def check(self, statistics: list[Statistic]) -> Iterator[Found]:
        for each in statistics:
            if each.kept == "parameter" and each.value.requires_grad:
                yield each.path, f"{each.name} is a parameter: the optimizer moves it"
            elif each.value.grad_fn is not None:
                history = type(each.value.grad_fn).__name__
                yield (
                    each.path,
                    f"{each.name} carries the graph of all steps before ({history} and on)",
                )

    def mend(self, paths: Sequence[str], statistics: list[Statistic]) -> Surgery:
        return registered(tuple(paths), tuple(each for each in statistics if each.kept == "parameter"))

"""NL215."""

from collections.abc import Iterator, Sequence

from normlab.rules.facts.statistics import Statistic
from normlab.rules.mending import registered
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class UnsavedStatistics(Rule):
    """A tensor that is a plain attribute of its module is in no state_dict and does not follow model.to(device). A
    model with such running statistics is saved without them, and evaluates after loading as if it were new; parts of
    it stay on the CPU. The batch norm of many a tutorial is written so.
    """

    id = "NL215"
    severity = "warning"
    title = "running statistics that are not saved with the model"
    source = "torch.nn.Module.register_buffer; d2l.ai, batch normalization, implementation from scratch"
    remedy = "self.register_buffer(name, tensor) where the norm is made; assignments in forward may stay as they are"

    def check(self, statistics: list[Statistic]) -> Iterator[Found]:
        for each in statistics:
            if each.kept == "attribute":
                yield each.path, f"{each.name} is a plain attribute, no buffer: state_dict() does not hold it"

    def mend(self, paths: Sequence[str], statistics: list[Statistic]) -> Surgery:
        return registered(tuple(paths), tuple(each for each in statistics if each.kept == "attribute"))

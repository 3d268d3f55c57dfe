"""NL306."""

from collections.abc import Iterator

from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.rule import Found, Rule


class Poisoned(Rule):
    """One inf or NaN at a batch norm's input makes the whole channel NaN for all examples of the batch, and in
    torch's layer the running statistics too, for ever: no later batch takes it out of an average again.
    """

    id = "NL306"
    severity = "error"
    title = "inf or NaN reaches a batch norm"
    source = "github.com/pytorch/pytorch/issues/90342"
    remedy = "look at the layer named; normlab.nn.BatchNorm2d leaves its buffers as they are on such a batch"

    def check(self, training: Pass, batch_norms: dict[str, Norm]) -> Iterator[Found]:
        culprit = None
        for use in training.uses:
            broken = use.input is not None and not use.input.finite
            if broken and use.path in batch_norms:
                origin = (
                    f"{culprit} made it of finite numbers" if culprit else "the batch, or code around layers, has it"
                )
                yield use.path, f"its input holds inf or NaN in train mode: {origin}"
                return  # the ones behind it follow from this one
            if culprit is None and use.output is not None and not use.output.finite and not broken:
                culprit = use.path

"""NL314."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.passes import Use
from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.find import parents, put
from normlab.surgery.flow import Link
from normlab.surgery.last_dimension import LastDimension


class SequenceLayout(Rule):
    """A linear layer has its features last, (N, L, C); BatchNorm1d takes the second dimension for the channels, (N,
    C, L). Where the sequence happens to be as long as it has features nothing complains, and each position is
    normalized over the examples and features in place of each feature over the examples and positions.
    """

    id = "NL314"
    severity = "warning"
    title = "positions taken for channels"
    source = "torch.nn.BatchNorm1d, shape; torch.nn.Linear, shape"
    remedy = "transpose before and behind: norm(x.transpose(1, 2)).transpose(1, 2)"
    recalibrates = True

    def check(self, model: nn.Module, batch_uses: dict[str, list[Use]], flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            linear, uses = model.get_submodule(link.source), batch_uses.get(link.target, [])
            if not isinstance(linear, nn.Linear):
                continue
            for shape in {use.input.shape for use in uses if use.input}:
                if len(shape) == 3 and shape[1] == shape[2]:
                    yield (
                        link.target,
                        f"its input {shape} comes from {link.source}, which has its {shape[2]} features last; the "
                        "norm takes the second dimension for them",
                    )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), _last)


def _last(model: nn.Module, path: str) -> Mended:
    norm, places = model.get_submodule(path), parents(model, path)
    put(LastDimension(norm).train(norm.training), places)
    return f"stands in a LastDimension, at {path}.norm", lambda: put(norm, places)

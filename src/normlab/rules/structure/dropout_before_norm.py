"""NL102."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.find import parents, put

ELEMENTWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
)
"""Through these a change of variance goes on; a layer that mixes many inputs averages some of it away."""
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Not alpha dropout, which keeps mean and variance."""
LEAST = 0.05
"""Of an input of mean 0 the standard deviation is then off by 2.5 %; some networks drop one in ten thousand."""


class DropoutBeforeNorm(Rule):
    """Dropout keeps the mean of its input but raises the variance, in training only. A batch norm behind it stores
    the variance of training and divides by it in evaluation, where the true one is smaller: every activation comes
    out too small, and the error goes on through the network.
    """

    id = "NL102"
    severity = "warning"
    title = "dropout in front of a batch norm: another variance in training than in evaluation"
    source = "Li, Chen, Hu & Yang 2018, arXiv 1801.05134, section 3"
    remedy = "put the dropout behind the norm; where it feeds it directly, normlab.surgery.reorder('dropout', 'norm')"
    recalibrates = True
    study = "order"

    def check(self, model: nn.Module, pairs: dict[str, str], averaging_norms: dict[str, Norm]) -> Iterator[Found]:
        for path in averaging_norms:
            source = _row(model, pairs, path)[0]
            dropout = model.get_submodule(source)
            if isinstance(dropout, DROPOUT) and dropout.p >= LEAST:
                kept = 1 - dropout.p
                yield (
                    path,
                    f"{source} drops {dropout.p:.0%} in front of it: in evaluation the variance of an input of mean "
                    f"0 is {kept:.2f} of that in training, by which it is divided",
                )

    def mend(self, paths: Sequence[str], pairs: dict[str, str]) -> Surgery:
        def behind(model: nn.Module, path: str) -> Mended:
            """Each of the row goes one place forward, and the dropout to the norm's."""
            row = _row(model, pairs, path)
            places = [parents(model, each) for each in row]
            layers = [model.get_submodule(each) for each in row]

            def order(layers: list[nn.Module]) -> None:
                for layer, place in zip(layers, places, strict=True):
                    put(layer, place)

            order([*layers[1:], layers[0]])
            return f"{row[0]} stands behind it, at {path}", lambda: order(layers)

        return changed(tuple(paths), behind)


def _row(model: nn.Module, pairs: dict[str, str], path: str) -> list[str]:
    """From what feeds the norm at a path, through elementwise layers, to the norm."""
    row = [path]
    while (source := pairs.get(row[0])) is not None:
        row.insert(0, source)
        if not isinstance(model.get_submodule(source), ELEMENTWISE):
            break
    return row

"""normlab measure: what a network is like as it is; nothing is trained, and nothing is left behind."""

import json as json_lines
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import cyclopts
from cyclopts import Parameter

from normlab.cli.asked import Asked, Subject, subject
from normlab.cli.tables import plain_console, print_table
from normlab.errors import NormlabError

if TYPE_CHECKING:
    from normlab.store.verdict import Figure

measure = cyclopts.App(name="measure", help="Ask a network how its signals, its gradients and its loss behave.",
                       help_format="plaintext")  # fmt: skip

Kinds = Annotated[
    tuple[Literal["affine", "norm", "activation", "leaf"], ...],
    Parameter(consume_multiple=(1, None), negative=""),
]


class Answer(NamedTuple):
    """What was found: for a program, for a terminal, and as a picture."""

    plain: dict[str, Any]
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    sentence: str
    figure: "Figure"


@measure.command
def signal(model: str, /, *, of: Kinds = ("affine",), skip: int = 0, asked: Asked | None = None) -> None:
    """How activations and gradients grow with depth, and whether two inputs stay apart.

    Rates are fitted without the last layer. A gradient rate above 1 means that gradients explode towards the input.

    Args:
        model: lenet, mlp, deep, resnet20 ..., or your own as pkg.module:callable.
        of: kinds of layers: affine (linear, convolution), norm, activation, leaf (all that hold no other).
        skip: leave so many first layers out of the rates.
        asked: what is asked.

    """
    if skip < 0:
        raise NormlabError("--skip of at least 0", skip)
    network, asked = _network(model, asked)

    from torch.nn.functional import cross_entropy

    from normlab.lab.figure import paths
    from normlab.measure import signal_propagation

    found = signal_propagation(*network, cross_entropy, of=of)
    rates = {
        "activation": found.activation_rate(skip),
        "gradient": found.gradient_rate(skip),
        "decorrelation": found.decorrelation_rate(skip),
    }
    columns = (found.activations, found.gradients, found.correlations)
    lines = {"activations": found.activations, "gradients": found.gradients}
    answer = Answer(
        {"layers": [*found.layers], "activations": found.activations, "gradients": found.gradients,
         "correlations": found.correlations, "rates": rates},
        ("layer", "activations", "gradients", "correlation"),
        [(path, *map(_number, row)) for path, row in zip(found.layers, zip(*columns, strict=True), strict=True)],
        f"a layer multiplies the mean square of activations by {_number(rates['activation'])}, on the way back that "
        f"of gradients by {_number(rates['gradient'])}, and 1 - correlation by {_number(rates['decorrelation'])}",
        paths(
            f"Signals in {model}",
            {name: [*enumerate(values, 1)] for name, values in lines.items()},
            x="layer, in order of execution",
            axis="mean square",
            log=True,
        ),
    )  # fmt: skip
    _give(answer, asked)


@measure.command
def activations(model: str, /, *, of: Kinds = ("norm", "activation"), asked: Asked | None = None) -> None:
    """How the outputs of layers and their gradients are distributed: moments, percentiles, dead units, heavy tails.

    Args:
        model: lenet, mlp, deep, resnet20 ..., or your own as pkg.module:callable.
        of: kinds of layers: affine (linear, convolution), norm, activation, leaf (all that hold no other).
        asked: what is asked.

    """
    network, asked = _network(model, asked)

    from torch.nn.functional import cross_entropy

    from normlab.lab.figure import percentiles
    from normlab.measure import activation_statistics

    found = activation_statistics(*network, cross_entropy, of=of)
    shown = ("mean", "variance", "kurtosis", "dead", "top_share", "p15", "p50", "p85", "gradient variance")
    plain = {path: layer.plain() for path, layer in found.items()}
    bands = [(float(depth), *layer.output.percentiles.values()) for depth, layer in enumerate(found.values(), 1)]
    answer = Answer(
        {"layers": plain},
        ("layer", *(name.replace(" ", "_") for name in shown)),
        [(path, *(_number(values.get(name)) for name in shown)) for path, values in plain.items()],
        "dead: units that are 0 in every example; top_share: of the sum of magnitudes, what the largest 1 % have",
        percentiles(
            f"Outputs in {model}",
            {"percentiles 15, 50 and 85": bands},  # type: ignore[dict-item]
            x="layer, in order of execution",
            axis="output",
        ),
    )
    _give(answer, asked)


@measure.command
def landscape(model: str, /, *, lr: float = 0.1, points: int = 13, asked: Asked | None = None) -> None:
    """The loss and its gradient along the gradient, as by Santurkar et al. 2018.

    Args:
        model: lenet, mlp, deep, resnet20 ..., or your own as pkg.module:callable.
        lr: learning rate; steps go from half of it to four times.
        points: how many steps, evenly in logarithms.
        asked: what is asked.

    """
    if points < 2:
        raise NormlabError("--points of at least 2", points)
    network, asked = _network(model, asked)

    from torch.nn.functional import cross_entropy

    from normlab.lab.figure import paths
    from normlab.measure import along_gradient

    rates = [lr * 2 ** (3 * index / (points - 1) - 1) for index in range(points)]
    found = along_gradient(*network, cross_entropy, rates)
    columns = (found.rates, found.losses, found.gradient_changes)
    lines = {
        "loss": (found.losses, found.loss),
        "how far the gradient moves, over its length": (found.gradient_changes, found.gradient_norm),
    }
    answer = Answer(
        vars(found) | {"loss_range": found.loss_range, "smoothness": found.smoothness},
        ("learning rate", "loss", "gradient change"),
        [tuple(map(_number, row)) for row in zip(*columns, strict=True)],
        f"from a loss of {_number(found.loss)}, with a gradient of length {_number(found.gradient_norm)}: losses "
        f"over a range of {_number(found.loss_range)}, effective smoothness {_number(found.smoothness)}",
        paths(
            f"Along the gradient of {model}",
            {name: [(rate, value / (start or math.nan)) for rate, value in zip(rates, values, strict=True)]
             for name, (values, start) in lines.items()},
            x="learning rate of the step",
            axis="relative to before the step",
        ),
    )  # fmt: skip
    _give(answer, asked)


@measure.command
def sharpness(model: str, /, *, count: int = 1, iterations: int = 100, asked: Asked | None = None) -> None:
    """The largest eigenvalues of the Hessian of the loss, and the learning rate that they allow.

    Args:
        model: lenet, mlp, deep, resnet20 ..., or your own as pkg.module:callable.
        count: how many eigenvalues.
        iterations: restarts of Lanczos' method, at most.
        asked: what is asked.

    """
    for value, name in ((count, "count"), (iterations, "iterations")):
        if value < 1:
            raise NormlabError(f"--{name} of at least 1", value)
    network, asked = _network(model, asked)

    from torch.nn.functional import cross_entropy

    from normlab.lab.figure import paths
    from normlab.measure import sharpness as find

    found = find(*network, cross_entropy, mode=asked.mode, count=count, iterations=iterations)
    answer = Answer(
        vars(found) | {"two_over_largest": found.two_over_largest},
        ("place", "eigenvalue"),
        [(str(place), _number(value)) for place, value in enumerate(found.eigenvalues, 1)],
        f"in {found.mode} mode 2 / largest is {_number(found.two_over_largest)}; central differences of the gradient "
        f"agree to {_number(found.self_check)}",
        paths(
            f"Hessian eigenvalues of {model}, {found.mode} mode",
            {"eigenvalue": [*enumerate(found.eigenvalues, 1)]},
            x="place",
            axis="eigenvalue",
        ),
    )
    _give(answer, asked)


def _network(model: str, asked: Asked | None) -> tuple[Subject, Asked]:
    """What is asked, where the answer could be written."""
    asked = asked or Asked()
    if asked.output is not None:
        from normlab.report.figure import check_target

        check_target(asked.output)
    console = plain_console()
    console.quiet = asked.json
    return subject(model, asked, console.print), asked


def _give(answer: Answer, asked: Asked) -> None:
    if asked.output is not None:
        from normlab.report.figure import write

        write(answer.figure.spec, asked.output, answer.figure.title)
    if asked.json:
        print(json_lines.dumps(_finite(answer.plain)))
        return
    print_table(answer.header, answer.rows)
    console = plain_console()
    console.print(answer.sentence)
    if asked.output is not None:
        console.print(f"figure: {asked.output.resolve()}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _finite(value: Any) -> Any:
    """What JSON can hold: None for inf and NaN."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

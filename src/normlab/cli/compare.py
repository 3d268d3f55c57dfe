"""normlab compare: which of two is better, without writing a study."""

import json as json_lines
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from pydantic import ValidationError

from normlab.cli.options import parse_options
from normlab.cli.study import Json, Store, Where, check_seeds, summary
from normlab.cli.tables import plain_console
from normlab.errors import NormlabError
from normlab.store import Recipe, Runs


def compare(
    one: str,
    other: str,
    /,
    *,
    as_: Annotated[Literal["norm", "model", "recipe"] | None, Parameter(name="--as")] = None,
    model: str | None = None,
    model_options: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = (),
    data: str | None = None,
    size: Literal["quick", "standard", "full"] = "quick",
    seeds: int | None = None,
    margin: float = 0.004,
    tune: Annotated[bool, Parameter(negative="")] = False,
    lr: float | None = None,
    optimizer: Literal["sgd", "momentum", "adamw"] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    where: Where | None = None,
    rerun: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    plot: Path | None = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Compare two norms, models or recipes: which is better, by how much, and how sure that is.

    Args:
        one: a norm (batch, none, pkg.module:Layer), a model (lenet, mlp, pkg.module:build) or a recipe.json.
        other: what it is compared with.
        as_: what both are, where a word could mean either.
        model: the model whose batch norms are swapped, or that the recipes train. Default: lenet.
        model_options: options of that model, as k=v.
        data: your data, as pkg.module:callable, or fashion-mnist, digits, digits-8x8.
        size: quick (minutes), standard or full.
        seeds: how many, from 0 on; only what is missing is run. Default: the size's own.
        margin: a difference in accuracy below this is none; 0.004 is 0.4 points.
        tune: give each side its own best learning rate of a grid, by validation accuracy.
        lr: learning rate of both, and the middle of the grid of --tune.
        optimizer: of both.
        epochs: passes over the training data.
        batch_size: examples per step.
        where: who does the work.
        rerun: run every trial anew, those that the store has too.
        dry_run: say what was understood and what it would take, and stop.
        plot: draw both sides' accuracies into this file: .png, .svg or .html.

    """
    from normlab.cli.carry_out import carry_out, prepare
    from normlab.lab.compare import compare as compare_sides
    from normlab.lab.sides import side
    from normlab.report.figure import check_target, write
    from normlab.report.rows import latex_row, markdown_row

    check_seeds(seeds)
    if plot is not None:
        check_target(plot)
    options = parse_options(model_options)
    given = {"lr": lr, "optimizer": optimizer, "epochs": epochs, "batch_size": batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        Recipe(**changes)  # type: ignore[arg-type]
    except ValidationError as error:
        raise cyclopts.ValidationError from error
    sides = [side(text, as_) for text in (one, other)]
    asked = compare_sides(
        sides,
        margin=margin,
        tune=tune,
        changes=changes,
        data_name=data,
        size=size,
        seeds=seeds,
        model=model,
        model_options=options,
        command=_command(one, other, {"as": as_, "model": model, "model-options": model_options, "data": data,
                                      "size": size, "seeds": seeds, "margin": margin, "tune": tune} | changes),
    )  # fmt: skip
    console, runs = plain_console(), Runs(store)
    caveats = " ".join(asked.study.caveats[:-1])
    console.print(f"comparing {sides[0]} with {sides[1]}; put to the test: {asked.study.claim} {caveats}")
    prepared = prepare([asked], runs, where or Where(), console, rerun=rerun)
    if dry_run:
        if json:
            print(json_lines.dumps(prepared.estimated.to_plain()))
        return
    (verdict,) = carry_out(prepared, console)
    if plot is not None:
        if not verdict.figures:
            raise NormlabError("a usable trial to draw", "none", "see `normlab study show`")
        write(verdict.figures[0].spec, plot, verdict.question)
        console.print(f"figure: {plot.resolve()}")
    for line in (*markdown_row(verdict), *latex_row(verdict)):
        console.print(line)
    console.print(f"every number: normlab study show {verdict.key[:8]}")
    if json:
        both = {"one": one, "other": other, "key": verdict.key, "answer": verdict.sentence}
        print(json_lines.dumps(both | summary(verdict)))
    else:
        console.print(verdict.sentence)


def _command(one: str, other: str, options: dict[str, Any]) -> str:
    """Asks the same again."""
    words = ["normlab", "compare", one, other]
    for name, value in options.items():
        name = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(name)
        elif isinstance(value, tuple):
            words += [word for each in value for word in (name, each)]
        elif value is not None and value is not False:
            words += [name, str(value)]
    return shlex.join(words)

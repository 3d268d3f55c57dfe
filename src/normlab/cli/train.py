"""normlab train: one run, watched, kept, drawn."""

import json as json_lines
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from pydantic import Field, ValidationError
from rich.console import Console

from normlab.cli.options import parse_options
from normlab.cli.signals import StopSignals
from normlab.cli.tables import plain_console
from normlab.store import Recipe, Record, Runs
from normlab.store.home import home
from normlab.store.recipe import Share


@Parameter(name="*")
class _Fields(Recipe):
    """The recipe's own fields as options; those that are no plain value have options of their own, here or below."""

    model_options: Annotated[dict[str, Any], Parameter(parse=False)] = Field({})
    surgeries: Annotated[tuple[dict[str, Any], ...], Parameter(parse=False)] = ()
    shares: Annotated[tuple[Share, ...], Parameter(consume_multiple=(1, None), negative="", show_default=False)] = (
        1,
    )
    """How much of every batch each process takes, as 100 156. Default: all the same. To start two processes:
    torchrun --nproc-per-node 2 -m normlab train."""


def train(
    *,
    recipe: _Fields | None = None,
    model_options: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = (),
    norm: str | None = None,
    checkpoints: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    plot: Path | None = None,
    store: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a network and keep the record.

    The last line is the thread's own: loss, training accuracy, test accuracy under running statistics,
    examples/sec.

    Args:
        recipe: what to train.
        model_options: options of the model, as k=v. lenet takes activation, pooling, norms, bias, dropout,
            init, eps and momentum; mlp has widths instead of pooling.
        norm: put this normalization in the place of every batch norm: one of those that `normlab explain` lists,
            none, or your own layer class as pkg.module:callable.
        checkpoints: leave a checkpoint in this folder after every epoch.
        resume: go on from the newest checkpoint, of --checkpoints or of an interrupted run of this recipe.
        plot: draw loss and accuracies into this file: .png, .svg or .html.
        store: the runs store. Default: runs.db in NORMLAB_HOME.
        json: end with one line of JSON.

    """
    surgeries = () if norm is None else ({"name": "swap", "source": "batch", "target": norm},)
    fields = (recipe or _Fields()).model_dump()
    try:
        asked = Recipe(**fields | {"model_options": parse_options(model_options), "surgeries": surgeries})
    except ValidationError as error:
        raise cyclopts.ValidationError from error
    # What could fail should fail before the training.
    if plot is not None:
        from normlab.report.figure import check_target

        check_target(plot)
    runs = Runs(store)
    runs.prepare()

    console = plain_console()
    interrupted_to = home() / "checkpoints"
    with StopSignals() as signals:
        from normlab.cli.watch import observer_for
        from normlab.train import Interrupted
        from normlab.train import train as run
        from normlab.train.memory import keep_freed
        from normlab.train.parallel import joined

        keep_freed()
        with joined() as first:
            console.quiet = not first
            try:
                record = run(
                    asked,
                    checkpoints=checkpoints,
                    resume=resume,
                    interrupted_to=interrupted_to,
                    stop=signals.received,
                    observer=observer_for(console, begun=signals.arm),
                    say=console.print,
                )
            except Interrupted as interrupted:
                if first:
                    advice = "the same command with --resume goes on from there"
                    print(f"normlab: {interrupted}; {advice}", file=sys.stderr)
                raise SystemExit(signals.exit_code) from None
        if not first:
            return
        runs.add(record)
    # What an interruption of this very run may have left has served.
    shutil.rmtree(interrupted_to / record.trial, ignore_errors=True)
    _report(record, console, runs.path, plot, json)


def _report(record: Record, console: Console, store: Path, plot: Path | None, json: bool) -> None:
    last, precise, nonfinite = record.last, record.result.precise, record.result.nonfinite
    if nonfinite:
        console.print(
            f"the loss was not finite at epoch {nonfinite.epoch}, step {nonfinite.step}: training ended there"
        )
    if precise and precise.test_accuracy is not None:
        running = "" if last.test_accuracy is None else f"{last.test_accuracy:.3f} under running statistics, "
        console.print(
            f"test acc {running}{precise.test_accuracy:.3f} under statistics recomputed over the training data"
        )
    if plot is not None:
        from normlab.report.curve import curve
        from normlab.report.figure import save

        save(curve(record), plot, f"{record.recipe.model} on {record.recipe.data}: normlab")
        console.print(f"curve: {plot.resolve()}")
    console.print(f"record: {record.trial} in {store}")
    if json:
        print(json_lines.dumps(summary(record)))
    else:
        tested = precise.test_accuracy if precise and last.test_accuracy is None else last.test_accuracy
        console.print(
            f"loss {_three(last.train_loss)}, train acc {last.train_accuracy:.3f}, test acc {_three(tested)}; "
            f"{record.timing.examples_per_s:.0f} examples/sec on {record.timing.device}"
        )


def summary(record: Record) -> dict[str, Any]:
    """The record's main numbers under the names that scripts read."""
    last, precise = record.last, record.result.precise
    return {
        "loss": last.train_loss,
        "train_acc": last.train_accuracy,
        "validation_acc": last.validation_accuracy,
        "test_acc": last.test_accuracy,
        "precise_train_acc": precise and precise.train_accuracy,
        "precise_validation_acc": precise and precise.validation_accuracy,
        "precise_test_acc": precise and precise.test_accuracy,
        "examples_per_s": record.timing.examples_per_s,
        "parameters": record.result.parameters,
        "seconds": record.timing.seconds,
        "trial": record.trial,
    }


def _three(value: float | None) -> str:
    return "nan" if value is None else f"{value:.3f}"

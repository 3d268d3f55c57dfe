"""normlab runs: what was trained."""

import csv
import io
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from normlab.cli.tables import plain_console, print_table
from normlab.errors import NormlabError
from normlab.store import Record, Runs
from normlab.store.files import write_atomically
from normlab.store.trial import reusable

runs = cyclopts.App(
    name="runs", help="List, show, export, import and prune what was trained.", help_format="plaintext"
)

Store = Annotated[Path | None, Parameter(help="the runs store. Default: runs.db in NORMLAB_HOME")]
Json = Annotated[bool, Parameter(negative="", help="end with one line of JSON")]


@runs.command(name="list")
def list_runs(*, store: Store = None, json: Json = False) -> None:
    """Every run, oldest first: its id, recipe and result."""
    import json as json_lines

    found = Runs(store)
    rows = [row(finished, record) for finished, record in found.list()]
    if json:
        print(json_lines.dumps(rows))
        return
    shown: tuple[str, ...] = (
        "trial",
        "finished",
        "model",
        "data",
        "lr",
        "epochs",
        "seed",
        "loss",
        "train_acc",
        "test_acc",
        "examples_per_s",
    )
    if rows:
        if plain_console().is_terminal:  # eighty columns must do: digits enough to name a run, and no date
            rows = [each | {"trial": each["trial"][:8]} for each in rows]
            shown = tuple(name for name in shown if name != "finished")
        print_table(shown, [[_brief(each[name]) for name in shown] for each in rows])
    else:
        print(f"no runs in {found.path} yet: try `normlab train --data digits --epochs 3 --batch-size 64`")


@runs.command
def show(trial: str, /, *, store: Store = None, json: Json = False) -> None:
    """One run, whole.

    Args:
        trial: its id, or as many of the first digits as tell it from the others.

    """
    record = Runs(store).get(trial)
    if json:
        print(record.model_dump_json())
        return
    console = plain_console()
    for title, part in (("recipe", record.recipe), ("timing", record.timing)):
        console.print(title, style="bold")
        for name, value in part.model_dump().items():
            console.print(f"  {name}: {value}")
    console.print("epochs", style="bold")
    epochs = [epoch.model_dump() for epoch in record.result.epochs]
    print_table(tuple(epochs[0]), [[_brief(value) for value in epoch.values()] for epoch in epochs])
    if record.result.precise:
        console.print("under recomputed statistics", style="bold")
        precise = record.result.precise.model_dump()
        print_table(tuple(precise), [[_brief(value) for value in precise.values()]])
    console.print(f"parameters: {record.result.parameters}; trial {record.trial}")
    console.print(", ".join(f"{name} {value}" for name, value in (record.versions | record.machine).items()))


@runs.command
def export(
    *,
    format: Literal["csv", "jsonl"] = "csv",
    output: Path | None = None,
    store: Store = None,
) -> None:
    """All runs as a table (csv: a line a run) or whole (jsonl: a JSON object a line, every epoch in it).

    Args:
        format: csv or jsonl.
        output: the file. Default: standard output.

    """
    found = Runs(store).list()
    if format == "jsonl":
        text = "".join(record.model_dump_json() + "\n" for _, record in found)
    else:
        rows = [row(finished, record) for finished, record in found]
        buffer = io.StringIO()
        # Records of other versions and machines may name other things.
        names = dict.fromkeys(name for each in rows for name in each) or ["trial"]
        writer = csv.DictWriter(buffer, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    if output is None:
        sys.stdout.write(text)
    else:
        try:
            write_atomically(output, text.encode())
        except OSError as error:
            raise NormlabError(
                f"to write the table {output}", error.strerror, "free the disk, or name another file"
            ) from error
        print(f"{len(found)} runs: {output.resolve()}")


@runs.command
def prune(
    *, dry_run: Annotated[bool, Parameter(negative="")] = False, store: Store = None, json: Json = False
) -> None:
    """Drop the records that this version would make anew, and the failures; verdicts stay.

    A record that names a module of yours which is not found from here is kept: run this from its folder.

    Args:
        dry_run: say how many, and drop nothing.

    """
    import json as json_lines

    found = Runs(store)
    verdicts = {record.trial: reusable(record) for _, record in found.list()}
    stale = [trial for trial, answer in verdicts.items() if answer is False]
    unknown = sum(answer is None for answer in verdicts.values())
    failures = found.failures()
    if not dry_run and (stale or failures):
        found.remove([*stale, *failures])
    does = "would be dropped" if dry_run else "dropped"
    apart = f", {unknown} of them with modules that are not found from here" if unknown else ""
    print(f"{len(stale)} records and {len(failures)} failures {does}, {len(verdicts) - len(stale)} kept{apart}")
    if json:
        print(json_lines.dumps({
            "records": len(stale), "failures": len(failures), "kept": len(verdicts) - len(stale), "unknown": unknown
        }))  # fmt: skip


@runs.command(name="import")
def import_runs(other: Path, /, *, store: Store = None, json: Json = False) -> None:
    """Take over the records of another store: a classmate's seeds join yours.

    Args:
        other: their runs.db.

    """
    import json as json_lines

    found = Runs(store)
    new = found.merge(Runs(other))
    usable = sum(reusable(record) is True for record in new)
    print(f"{len(new)} new records from {other}, of which this version can use {usable}")
    if json:
        print(json_lines.dumps({"new": len(new), "usable": usable}))


def row(finished: str, record: Record) -> dict[str, Any]:
    """A record as one flat row."""
    import json

    last, precise = record.last, record.result.precise
    recipe = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in record.recipe.model_dump(mode="json").items()
    }
    return {
        "trial": record.trial,
        "finished": finished,
        **recipe,
        "loss": last.train_loss,
        "train_acc": last.train_accuracy,
        "validation_acc": last.validation_accuracy,
        "test_acc": last.test_accuracy,
        "precise_train_acc": precise and precise.train_accuracy,
        "precise_validation_acc": precise and precise.validation_accuracy,
        "precise_test_acc": precise and precise.test_accuracy,
        "nonfinite_step": record.result.nonfinite and record.result.nonfinite.step,
        "parameters": record.result.parameters,
        "examples_per_s": record.timing.examples_per_s,
        "seconds": record.timing.seconds,
        **{f"version_{name}": version for name, version in record.versions.items()},
        **{f"machine_{name}": value for name, value in record.machine.items()},
    }


def _brief(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= value < 1e6 else f"{value:.4g}"
    return str(value)

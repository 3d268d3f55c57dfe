"""normlab study: questions and their answers."""

import dataclasses
import json as json_lines
import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from normlab.cli.options import parse_options
from normlab.cli.tables import plain_console, print_table
from normlab.errors import NormlabError, choose
from normlab.store import Runs, Verdict
from normlab.store.files import write_atomically
from normlab.store.home import home

study = cyclopts.App(name="study", help="Ask what normalization does, and get an answer with error bars.",
                     help_format="plaintext")  # fmt: skip

Store = Annotated[Path | None, Parameter(help="the runs store. Default: runs.db in NORMLAB_HOME")]
Json = Annotated[bool, Parameter(negative="", help="end with one line of JSON")]
Backend = Literal["local", "dask"]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Where:
    """Who does the work."""

    workers: int | None = None
    """Worker processes, one thread each. Default: one for each core, or for each GPU."""
    backend: Backend = "local"
    """local: processes of this machine; dask: the cluster at --address."""
    address: str | None = None
    """The Dask scheduler, as tcp://host:8786; each worker process runs one trial at a time."""
    executor: str | None = None
    """Any concurrent.futures executor, as pkg.module:callable."""


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Subject:
    """What is asked about, where it is not the study's own."""

    model: str | None = None
    """A model of yours, as pkg.module:callable, or lenet, mlp, inception, resnet8, deep."""
    model_options: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = ()
    """Options of the model, as k=v."""
    data: str | None = None
    """Your data, as pkg.module:callable, or fashion-mnist, digits, digits-8x8."""
    norm: str | None = None
    """A norm in the place of batch norm, by name or as pkg.module:Layer; `transforms` compares it with the family."""


@study.command(name="list")
def list_studies(*, json: Json = False) -> None:
    """Every study: its question, and how many trials it takes at each size."""
    from normlab import studies

    found = {name: studies.find(name) for name in studies.names()}
    counts = {
        name: {size: each.plan.expected(len(each.at(size).arms), chosen.seeds) for size, chosen in each.sizes.items()}
        for name, each in found.items()
    }
    if json:
        rows = [{"study": name, "trials": counts[name], "question": each.question} for name, each in found.items()]
        print(json_lines.dumps(rows))
        return
    sizes = ("quick", "standard", "full")
    print_table(
        ("study", *sizes, "question"),
        [
            (name, *(str(counts[name].get(size, "-")) for size in sizes), each.question)
            for name, each in found.items()
        ],
    )


@study.command
def run(
    names: Annotated[tuple[str, ...], Parameter(negative="")] = ("all",),
    /,
    *,
    size: Literal["quick", "standard", "full"] = "quick",
    seeds: int | None = None,
    subject: Subject | None = None,
    where: Where | None = None,
    rerun: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    report: Path | None = None,
    open: Annotated[bool, Parameter(negative="")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Run studies: the trials that the store lacks, then every verdict, then a report.

    Args:
        names: studies by name, files with a STUDY, or all.
        size: quick (minutes), standard (an hour or so), full (the book's own ten epochs).
        seeds: how many, from 0 on; only what is missing is run. Default: the size's own.
        subject: what is asked about.
        where: who does the work.
        rerun: run every trial anew, those that the store has too.
        dry_run: say what it would take, and what can be decided, and stop.
        report: write the report into this .html or .md file. Default: report.html in NORMLAB_HOME.
        open: open the report in a browser.

    """
    from normlab.cli.asking import ask_all
    from normlab.cli.carry_out import carry_out, prepare

    check_seeds(seeds)
    subject, where = subject or Subject(), where or Where()
    target = report or home() / "report.html"
    _check_target(target)
    console = plain_console()
    asks = ask_all(
        names,
        size=size,
        say=console.print,
        seeds=seeds,
        model=subject.model,
        model_options=parse_options(subject.model_options),
        data_name=subject.data,
        norm=subject.norm,
    )
    runs = Runs(store)
    prepared = prepare(asks, runs, where, console, rerun=rerun)
    if dry_run:
        if json:
            print(json_lines.dumps(prepared.estimated.to_plain()))
        return
    verdicts = carry_out(prepared, console)
    _show_table(verdicts)
    _write_report(runs, [*runs.verdicts().values()], target)
    console.print(f"report: {target.resolve()}")
    if open:
        webbrowser.open(target.resolve().as_uri())
    if json:
        print(json_lines.dumps({verdict.study: summary(verdict) for verdict in verdicts}))


@study.command
def show(name: str, /, *, size: str | None = None, store: Store = None, json: Json = False) -> None:
    """A study's verdict, with every number that decided; the latest if there are several.

    Args:
        name: a study, or the first digits of a key.
        size: quick, standard or full. Default: the largest that was run.

    """
    from normlab.report.text import lines

    verdict = _find(Runs(store), name, size)
    if json:
        print(verdict.model_dump_json())
    else:
        for line in lines(verdict):
            print(line)


@study.command
def report(
    output: Path | None = None,
    /,
    *,
    study: str | None = None,
    size: str | None = None,
    format: Literal["html", "md", "findings"] | None = None,
    open: Annotated[bool, Parameter(negative="")] = False,
    store: Store = None,
) -> None:
    """Write the report of every study that was run, from the store alone.

    Args:
        output: the file. Default: report.html (or .md) in NORMLAB_HOME.
        study: this study alone.
        size: of that study.
        format: html, one file that works offline, md, for a forum, or findings, a table of claims and of what was
            found. Default: the file's ending, else html.
        open: open it in a browser.

    """
    runs = Runs(store)
    found = [*runs.verdicts().values()] if study is None else [_find(runs, study, size)]
    if not found:
        raise NormlabError("a study that was run", f"none in {runs.path}", "normlab study run bias")
    target = output or home() / {"md": "report.md", "findings": "findings.md"}.get(format or "", "report.html")
    _check_target(target, format)
    _write_report(runs, found, target, format)
    print(f"report: {target.resolve()}")
    if open:
        webbrowser.open(target.resolve().as_uri())


def check_seeds(seeds: int | None) -> None:
    """Raises NormlabError for none."""
    if seeds is not None and seeds < 1:
        raise NormlabError("--seeds of at least 1", seeds)


def summary(verdict: Verdict) -> dict[str, Any]:
    """The numbers of a verdict under the names that scripts read."""
    deciding = verdict.deciding
    return {
        "verdict": verdict.word,
        "n": deciding.n,
        "effect": deciding.effect,
        "interval": [deciding.low, deciding.high],
        "p": deciding.p,
        "size": verdict.size,
        "seconds": verdict.seconds,
    }


def _find(runs: Runs, name: str, size: str | None) -> Verdict:
    from normlab import studies

    verdicts = runs.verdicts()
    found = [
        verdict
        for key, verdict in verdicts.items()
        if (verdict.study == name or (len(name) >= 4 and key.startswith(name))) and size in (None, verdict.size)
    ]
    if not found:
        if not any(key.startswith(name) for key in verdicts):
            choose(
                dict.fromkeys([*studies.names(), *(verdict.study for verdict in verdicts.values())]), name, "study"
            )
        known = ", ".join(dict.fromkeys(f"{verdict.study} ({verdict.size})" for verdict in verdicts.values()))
        raise NormlabError(
            f"a verdict on {name}" + (f" at size {size}" if size else ""),
            "none",
            f"there are {known}" if known else f"run it: normlab study run {name}",
        )
    order = ("quick", "standard", "full")
    return max(found, key=lambda verdict: order.index(verdict.size) if verdict.size in order else -1)


def _show_table(verdicts: Sequence[Verdict]) -> None:
    print_table(
        ("study", "verdict", "n", "answer"),
        [(verdict.study, verdict.word, str(verdict.deciding.n), verdict.sentence) for verdict in verdicts],
    )


def _check_target(target: Path, format: str | None = None) -> None:
    if format is None and target.suffix.lower() not in (".html", ".md"):
        raise NormlabError("a report as .html or .md", repr(str(target)), "or give --format")
    if target.is_dir():
        raise NormlabError("a report as a file", f"the folder {target}", "name a file in it")
    if target.parent != home() and not target.parent.is_dir():
        raise NormlabError("a report in a folder that is there", str(target.parent), "make it first")
    if target.parent.is_dir() and not os.access(target.parent, os.W_OK):
        raise NormlabError("a report in a folder that may be written to", str(target.parent), "name another")


def _write_report(runs: Runs, verdicts: Sequence[Verdict], target: Path, format: str | None = None) -> None:
    from normlab.report.findings import findings
    from normlab.report.markdown import markdown
    from normlab.report.page import html

    form = format or target.suffix.lower().removeprefix(".")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if form == "findings":
            page = findings(verdicts, runs.concluded())
        else:
            page = markdown(verdicts) if form == "md" else html(verdicts)
        write_atomically(target, page.encode())
    except OSError as error:
        raise NormlabError(
            f"to write the report {target}", error.strerror, "free the disk, or name another"
        ) from error

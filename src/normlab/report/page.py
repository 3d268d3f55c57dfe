"""The report: one HTML file that works offline, in the dark, on a phone, on paper and without scripts."""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from normlab.report import script, words
from normlab.report.thread import RUN
from normlab.store.verdict import Figure, Verdict

HERE = Path(__file__).parent
ANCHOR = 60
"""Characters of a section's name."""


def html(verdicts: Sequence[Verdict]) -> str:
    """The thread, question by question, and a section for each study; one verdict alone has no thread around it.

    From the same verdicts bit for bit the same page, but for what stands in elements with `data-timing`.
    """
    navigate, bundle = (HERE / "page.js").read_text(encoding="utf-8"), script.bundle()
    anchors = _anchors(verdicts)
    return _template().render(
        anchors=anchors,
        alone=len(verdicts) == 1,
        beside=words.beside_thread(verdicts),
        bundle=Markup(bundle),
        policy=script.policy(bundle, navigate),
        run=RUN,
        script=Markup(navigate),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        thread=[*words.thread(verdicts)],
        verdicts=verdicts,
        words=words,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        keep_trailing_newline=True,
        loader=jinja2.FileSystemLoader(HERE),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["spec"] = lambda spec: Markup(script.embedded(spec))
    environment.filters["tables"] = _tables
    return environment.get_template("page.html.jinja")


def _anchors(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Key to the name of the section: study and size, with a number where that was there before."""
    anchors: dict[str, str] = {}
    for verdict in verdicts:
        name = (
            re.sub(r"[^a-z0-9]+", "-", f"{verdict.study} {verdict.size}".lower()).strip("-")[:60].strip("-")
            or "study"
        )
        taken = sum(re.fullmatch(rf"{name}(--\d+)?", other) is not None for other in anchors.values())
        anchors[verdict.key] = f"{name}--{taken + 1}" if taken else name
    return anchors


def _tables(figure: Figure) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """(columns, rows) of the numbers that a chart draws, once; of data without numbers, such as labels, nothing."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    layers: list[list[Any]] = []
    for rows in _data(figure.spec):
        layers += [] if rows in layers else [rows]
    for rows in layers:
        for row in rows:
            if isinstance(row, dict) and any(isinstance(value, float | int) for value in row.values()):
                found.setdefault(tuple(row), []).append(row)
    return [([*columns], rows) for columns, rows in found.items()]


def _data(part: Any) -> Iterator[list[Any]]:
    """The inline data of a chart and of those within it, in its order."""
    if isinstance(part, list):
        for each in part:
            yield from _data(each)
    elif isinstance(part, dict):
        for key, each in part.items():
            if key == "datasets" and isinstance(each, dict):
                yield from each.values()
            elif key == "data" and isinstance(each, dict):
                yield from [each["values"]] if isinstance(each.get("values"), list) else []
            else:
                yield from _data(each)

"""Numbers and verdicts in words, the same on the page, in the post and in the terminal."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from normlab.report.thread import THREAD, Line
from normlab.store.verdict import Finding, MeasureFacts, Verdict

SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "answered": "•"}
"""A word's sign beside it: nothing is told by colour alone."""
NOTHING = "–"


def number(value: float | None, percent: bool = False) -> str:
    """Three significant digits; shares as percent, to the hundredth."""
    if value is None:
        return NOTHING
    # No minus before a zero that rounding made.
    return f"{round(100 * value, 2) + 0.0:.2f} %" if percent else f"{value + 0.0:.3g}"


def p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def is_percent(verdict: Verdict, finding: Finding) -> bool:
    measure = verdict.measures.get(finding.measure)
    return measure is not None and measure.percent and finding.scale in ("difference", "level")


def effect(verdict: Verdict, finding: Finding) -> str:
    return number(finding.effect, is_percent(verdict, finding))


def interval(verdict: Verdict, finding: Finding) -> str:
    """`0.10 % to 0.32 %`; one bound alone as `above` or `below` it."""
    low, high = (number(bound, is_percent(verdict, finding)) for bound in (finding.low, finding.high))
    if finding.low is None or finding.high is None:
        return NOTHING if finding.low is finding.high else f"above {low}" if finding.high is None else f"below {high}"
    return f"{low} to {high}"


def decided(verdict: Verdict) -> Finding | None:
    """The finding that decided, if any rule was asked that may."""
    return next((each for each in verdict.findings if each.word == verdict.word and not each.beside), None)


def usable(verdict: Verdict, arm: str) -> int:
    facts = verdict.arms[arm]
    return len(facts.trials.keys() - facts.unusable.keys())


def printable(text: str) -> str:
    """A space for every character that does something instead: a terminal would obey it."""
    return "".join(each if each.isprintable() else " " for each in text)


def plain(text: str) -> str:
    """All on one line."""
    return " ".join(printable(text).split())


class Answered(NamedTuple):
    """A line of the thread with the verdicts that answer it, and the commands where there are none."""

    line: Line
    verdicts: Sequence[Verdict]
    commands: Sequence[str]


def thread(verdicts: Sequence[Verdict]) -> Iterator[Answered]:
    """Every line of the thread, answered or not."""
    for line in THREAD:
        found = [verdict for verdict in verdicts if line.number in verdict.thread]
        yield Answered(line, found, [] if found else [f"normlab study run {study}" for study in line.studies])


def beside_thread(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that answer no line of the thread."""
    numbers = {line.number for line in THREAD}
    return [verdict for verdict in verdicts if not numbers.intersection(verdict.thread)]


def apart(verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    """The setting, where others of the same study and size have another: what tells them apart."""
    same = {each.setting for each in verdicts if (each.study, each.size) == (verdict.study, verdict.size)}
    return verdict.setting if len(same) > 1 else ""


class Grid(NamedTuple):
    """A table of a measure: the head of its rows, the heads of the other columns, and the rows."""

    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def grid(measure: MeasureFacts) -> Grid:
    """Arms by seeds, or seeds by arms: long rather than wide."""
    arms = [*measure.values]
    seeds = sorted({seed for values in measure.values.values() for seed in values})
    told = {(arm, seed): number(measure.values[arm].get(seed), measure.percent) for arm in arms for seed in seeds}
    if len(seeds) > len(arms):
        return Grid("Seed", arms, [(str(seed), [told[arm, seed] for arm in arms]) for seed in seeds])
    columns = [f"seed {seed}" for seed in seeds]
    return Grid("Arm", columns, [(arm, [told[arm, seed] for seed in seeds]) for arm in arms])


def cell(value: object) -> str:
    """A datum of a chart as a table shows it."""
    return NOTHING if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

"""A verdict on two arms as a row of a table, for a forum and for a paper."""

import statistics
from collections.abc import Iterator, Sequence

from normlab.report.markdown import text
from normlab.report.words import NOTHING, decided, effect, interval, number, plain
from normlab.store.verdict import Verdict

HEADER = (
    "one",
    "other",
    "setting",
    "accuracy of one",
    "accuracy of other",
    "difference",
    "95 % interval",
    "n",
    "verdict",
)

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    NOTHING: "--",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


def markdown_row(verdict: Verdict) -> list[str]:
    """Header, rule and row."""
    rule = ["---"] * len(HEADER)
    return [f"| {' | '.join(cells)} |" for cells in (HEADER, rule, [text(cell) for cell in _cells(verdict)])]


def latex_row(verdict: Verdict) -> list[str]:
    """The columns as a comment, and the row of a tabular."""
    return [f"% {' & '.join(HEADER)}", " & ".join(latex(cell) for cell in _cells(verdict)) + r" \\"]


def latex(words: str) -> str:
    """Words that mean nothing to LaTeX."""
    return "".join(_LATEX.get(each, each) for each in plain(words))


def _cells(verdict: Verdict) -> Sequence[str]:
    one, other = verdict.arms
    finding = decided(verdict)
    found = (
        [NOTHING] * 3 if finding is None else [effect(verdict, finding), interval(verdict, finding), str(finding.n)]
    )
    return [one, other, verdict.setting, *_means(verdict), *found, verdict.word]


def _means(verdict: Verdict) -> Iterator[str]:
    """Of all seeds of each arm that count, with their standard deviation."""
    finding = decided(verdict) or verdict.findings[0]
    measure = verdict.measures[finding.measure]
    for arm in verdict.arms:
        values = [*measure.values.get(arm, {}).values()]
        spread = f" ± {number(statistics.stdev(values), measure.percent)}" if len(values) > 1 else ""
        yield number(statistics.mean(values), measure.percent) + spread if values else NOTHING

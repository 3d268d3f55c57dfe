"""The findings: every claim beside its measurement, what was contradicted or left open first."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from normlab.report.markdown import code, text
from normlab.report.words import NOTHING, SIGNS, decided, effect, interval, is_percent, plain
from normlab.store.verdict import Verdict

HEADER = ("| study | question and claim | its figure | ours | n | verdict |", "|---|---|---|---|---|---|")
RUNS = ("| run | ours | n | verdict | on |", "|---|---|---|---|---|")
_WORDS = ("contradicted", "inconclusive", "supported", "answered")
_SIZES = {"full": 0, "standard": 1, "quick": 2}


def findings(verdicts: Sequence[Verdict], concluded: Mapping[str, str]) -> str:
    """A table with a row for each study, by its largest run, then a section with all of its runs; as markdown.

    `concluded` is when each verdict was found, by its key.
    """
    ordered = sorted(verdicts, key=_place)
    studies = [list(runs) for _, runs in groupby(ordered, key=lambda verdict: verdict.study)]
    studies.sort(key=lambda runs: (_WORDS.index(runs[0].word), runs[0].study))
    told = [
        "# Findings",
        "",
        "Each claim beside what was measured: the effect that decided, with its 95 % interval and the number n of "
        "seeds, networks or pairs. The row is the study's largest run; its section has all of them, what does not "
        "follow, and the command. A figure of the source is quoted only where it was read there. The rule was fixed "
        "before the run; contradicted and inconclusive come first.",
        "",
        *sorted({f"Measured on {_machine(verdict)}." for verdict in ordered}),
        "",
        *HEADER,
        *(_row(runs[0]) for runs in studies),
    ]
    for runs in studies:
        told += _section(runs, concluded)
    return "\n".join(told) + "\n"


def _place(verdict: Verdict) -> tuple[str, int, int, str]:
    """By study; the largest size first, and of one size the study's own setting, whose command is the shortest."""
    return verdict.study, _SIZES.get(verdict.size, len(_SIZES)), len(verdict.command), verdict.command


def _row(verdict: Verdict) -> str:
    study = f"[{text(verdict.study)}](#{_anchor(verdict)})"
    asked = f"{text(verdict.question)} {text(verdict.claim)}"
    cells = (study, asked, text(verdict.original), *_measured(verdict))
    return f"| {' | '.join(cells)} |"


def _measured(verdict: Verdict) -> tuple[str, str, str]:
    """Effect and interval, n, and the word."""
    finding, word = decided(verdict), f"{SIGNS[verdict.word]} **{verdict.word}**"
    if finding is None:
        return NOTHING, NOTHING, word
    told, bounds = effect(verdict, finding), interval(verdict, finding)
    if finding.scale == "ratio":
        told += " times"
    elif finding.scale == "difference" and is_percent(verdict, finding):  # of shares, which is no share
        told, bounds = told.replace(" %", " points"), bounds.replace(" %", "")
    return f"{told} ({bounds})", str(finding.n), word


def _section(runs: Sequence[Verdict], concluded: Mapping[str, str]) -> Iterator[str]:
    first = runs[0]
    finding = decided(first)
    yield from ("", f'<a id="{_anchor(first)}"></a>', "", f"## {text(first.question)}", "")
    yield f"{SIGNS[first.word]} **{first.word}**: {text(first.sentence)}"
    yield from ("", f"- **Claim**: {text(first.claim)}", f"- **Source**: {text(first.source)}")
    if first.original:
        yield f"- **Its figure**: {text(first.original)}"
    if finding is not None:
        yield f"- **What decided**: {text(finding.rule)}"
    if first.caveats:
        yield f"- **What it does not show**: {text(' '.join(first.caveats))}"
    yield from ("", *RUNS)
    for verdict in runs:
        command = code(plain(verdict.command)).replace("|", "\\|")
        cells = (f"{command}: {text(verdict.setting)}", *_measured(verdict))
        yield f"| {' | '.join(cells)} | {text(concluded.get(verdict.key, '')[:10])} |"


def _anchor(verdict: Verdict) -> str:
    return "".join(each if each.isalnum() else "-" for each in verdict.study.lower())


def _machine(verdict: Verdict) -> str:
    processor, cores = (verdict.machine.get(name, "unknown") for name in ("processor", "cores"))
    return text(f"{processor}, {cores} cores; torch {verdict.versions.get('torch', 'unknown')}")

"""The verdicts as a forum post: GitHub's markdown, which Discourse reads too."""

import re
from collections.abc import Iterator, Sequence

from normlab.report.thread import RUN
from normlab.report.words import NOTHING, SIGNS, apart, beside_thread, decided, effect, interval, plain, thread
from normlab.store.verdict import Verdict

HEADER = ("| | question | verdict | n | effect | interval |", "|---|---|---|---|---|---|")


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The thread with a row for each answer, then a paragraph and a command for each study; one verdict alone
    has no thread around it.
    """
    told = [] if len(verdicts) == 1 else [*_thread(verdicts), ""]
    for verdict in verdicts:
        told += _study(verdict)
    return "\n".join(told).rstrip("\n") + "\n"


def _thread(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield from (
        "# Batch normalization, measured",
        "",
        f"It began with a run: {text(RUN)}. And it asked:",
        "",
        *HEADER,
    )
    for line, answers, commands in thread(verdicts):
        for position, verdict in enumerate(answers):
            question = "" if position else text(line.question)
            yield f"| {line.number} | {question} | {_row(verdict, verdicts)} |"
        if not answers:
            asked = f"not measured yet: {' or '.join(map(code, commands))}"
            yield " | ".join([f"| {line.number}", text(line.question), asked, NOTHING, NOTHING, f"{NOTHING} |"])
    for verdict in beside_thread(verdicts):
        yield f"| | {text(verdict.question)} | {_row(verdict, verdicts)} |"


def _row(verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    finding, setting = decided(verdict), apart(verdict, verdicts)
    word = f"{SIGNS[verdict.word]} **{verdict.word}**: {text(verdict.sentence)}"
    if setting:
        word += f" ({text(setting)})"
    if finding is None:
        return " | ".join([word, NOTHING, NOTHING, NOTHING])
    return " | ".join([word, str(finding.n), effect(verdict, finding), interval(verdict, finding)])


def _study(verdict: Verdict) -> Iterator[str]:
    finding = decided(verdict)
    yield from (f"## {text(verdict.question)}", "")
    yield f"{SIGNS[verdict.word]} **{verdict.word}** ({text(verdict.size)}). {text(verdict.sentence)}"
    yield f"Claim: {text(verdict.claim)} ({text(verdict.source)}) Setting: {text(verdict.setting)}."
    if finding is not None:
        effect_ = f"effect {effect(verdict, finding)}, interval {interval(verdict, finding)}, n = {finding.n}"
        yield f"Rule, fixed before the run: {text(finding.rule)}; {effect_}."
    if verdict.rules_before is not None:
        yield f"**The rule was changed**; before the first trial it was: {text('; '.join(verdict.rules_before))}."
    if unusable := sum(len(facts.unusable) for facts in verdict.arms.values()):
        yield f"Unusable trials, counted apart: {unusable}."
    if verdict.caveats:
        yield f"What it does not show: {text(' '.join(verdict.caveats))}"
    fence = _fence(verdict.command, 3)
    yield from ("", f"{fence}sh", plain(verdict.command), fence, "")


def text(words: str) -> str:
    """Words that mean nothing to markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()<>#|~&!@])", r"\\\1", plain(words)) if re.search(r"\S", words) else NOTHING


def code(command: str) -> str:
    fence = _fence(command, 1)
    return f"{fence}{command}{fence}"


def _fence(content: str, least: int) -> str:
    """Longer than any run of its sign within."""
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", content)), 0)

"""A verdict for the terminal: at most 100 columns, no colours."""

import shlex
import textwrap
from collections.abc import Iterator, Sequence

from normlab.report.words import effect, interval, is_percent, number, p_value, plain, printable, usable
from normlab.store.verdict import Finding, Verdict

COLUMNS = 100
NAME = 40
"""Columns for an arm's name; a longer one has lines of its own."""


def lines(verdict: Verdict) -> list[str]:
    """The word, the answer, what decided, the arms, and the command that runs it again."""
    told = [*_wrap(f"{verdict.word}: {verdict.question}"), *_wrap(verdict.sentence, "  ")]
    told += ["", "findings"]
    for finding in verdict.findings:
        told += _finding(verdict, finding)
    if verdict.rules_before is not None:
        told += _wrap("The rules are not those that were fixed before the first trial, which were:", "  ")
        told += [line for rule in verdict.rules_before for line in _wrap(rule, "    ")]
    told += ["", "arms", *_arms(verdict)]
    if verdict.caveats:
        told += ["", "what it does not show"]
        told += [line for caveat in verdict.caveats for line in _wrap(caveat, "  ")]
    return [*told, "", "run it again", *_command(verdict.command)]


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(plain(text), COLUMNS, initial_indent=indent, subsequent_indent=indent + "  ")


def _finding(verdict: Verdict, finding: Finding) -> list[str]:
    beside = " (beside the verdict)" if finding.beside else ""
    facts = [f"effect {effect(verdict, finding)}", f"interval {interval(verdict, finding)}", f"n = {finding.n}"]
    if finding.p is not None:
        facts.append(f"p {p_value(finding.p)}")
    if finding.sign_flip is not None:
        facts.append(f"sign-flip p {p_value(finding.sign_flip)}")
    if finding.detectable is not None:
        facts.append(f"smallest detectable {number(finding.detectable, is_percent(verdict, finding))}")
    return [*_wrap(f"{finding.word}{beside}: {finding.rule}", "  "), *_wrap("; ".join(facts), "    ")]


def _arms(verdict: Verdict) -> Iterator[str]:
    width = max((len(plain(name)) for name in verdict.arms if len(plain(name)) <= NAME), default=0)
    for name, facts in verdict.arms.items():
        rate = "" if facts.lr is None else f"lr {facts.lr:g}, "
        told, label = f"{rate}{usable(verdict, name)} of {len(facts.trials)} usable", plain(name)
        if len(label) > NAME:
            yield from _wrap(label, "  ")
            label = ""
        yield f"  {label:{width}}  {told}"
        for seed, why in sorted(facts.unusable.items()):
            yield from _wrap(f"seed {seed}: {why}", "      ")


def _command(command: str) -> Sequence[str]:
    """On several lines as a shell takes them, if it is long; never cut within a word."""
    command = printable(command)
    if len(command) <= COLUMNS - 2:
        return [f"  {command}"]
    try:
        words = [shlex.quote(word) for word in shlex.split(command)]
    except ValueError:
        return [f"  {command}"]
    told = [f"  {words[0]}"]
    for word in words[1:]:
        if len(told[-1]) + len(word) + 3 > COLUMNS:
            told[-1] += " \\"
            told.append(f"    {word}")
        else:
            told[-1] += f" {word}"
    return told

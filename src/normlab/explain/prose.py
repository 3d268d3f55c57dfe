"""The form that explanations are written in, docstrings and files alike.

    Name: what it is in a line.

        a formula, indented

    Paragraphs.

    Over: what is normalized over what; a line that wraps is indented.
    Cost: in passes.

Blank lines part blocks. Paragraphs and formulas come in any order, labelled lines in blocks of their own.
"""

import dataclasses
import inspect
import re
import textwrap

LABELS = ("Over", "Cost", "When", "Source", "See", "Ask", "Picture")
"""See names topics, Ask studies, Picture the norms that are drawn, as `batch, ghost ghost_size=1`."""
_LABELLED = re.compile(rf"({'|'.join(LABELS)}): *(.*)")


@dataclasses.dataclass(frozen=True)
class Prose:
    """One explanation, every paragraph on one line."""

    title: str
    summary: str
    blocks: tuple[str, ...]
    """Paragraphs and formulas; a formula begins with a space and keeps its lines."""
    labels: dict[str, str]


def parse(text: str) -> Prose:
    """An explanation in the form above. What it lacks is empty."""
    first, *rest = re.split(r"\n\s*\n", inspect.cleandoc(text))
    title, _, summary = " ".join(first.split()).partition(": ")
    blocks: list[str] = []
    labels: dict[str, str] = {}
    for block in rest:
        if block.startswith(" "):
            blocks.append(textwrap.indent(textwrap.dedent(block), "    "))
        elif _LABELLED.match(block):
            labels |= _labelled(block)
        else:
            blocks.append(" ".join(block.split()))
    return Prose(title, summary, tuple(blocks), labels)


def _labelled(block: str) -> dict[str, str]:
    """{label: its text} of lines of which each begins with a label or goes on with an indented one."""
    labels: dict[str, str] = {}
    for line in re.sub(r"\n[ \t]+", " ", block).splitlines():
        if (match := _LABELLED.fullmatch(line)) is None:
            raise ValueError(f"expected one of {', '.join(LABELS)} at the start, or an indented line, got {line!r}")
        labels[match[1]] = match[2]
    return labels

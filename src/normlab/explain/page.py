"""The family of norms as one page of markdown: a table, then each norm with its picture."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from normlab.explain.picture import LEGEND, picture
from normlab.explain.topics import Topic, norms

COMMAND = "normlab explain --output docs/family.md"


def family_page() -> str:
    """Every norm, from the docstrings of their files."""
    by_file: dict[Path, list[Topic]] = {}
    for topic in norms().values():
        by_file.setdefault(topic.source, []).append(topic)
    return "\n".join(_page([*by_file.values()])) + "\n"


def _page(files: Sequence[Sequence[Topic]]) -> Iterator[str]:
    yield "# The family of normalizations"
    yield ""
    yield (
        "Every normalization of normlab: `normlab.nn.make_norm(NAME, num_features, dim)` makes the layer, "
        "`normlab explain NAME` tells what is told here, and `normlab explain` lists the words that it needs."
    )
    yield ""
    yield f"In the pictures: {LEGEND[0].lower()}{LEGEND[1:]}"
    yield ""
    yield "| name | what | over |"
    yield "|---|---|---|"
    for members in files:
        prose = members[0].prose
        linked = ", ".join(f"[{topic.name}](#{members[0].name})" for topic in members)
        yield f"| {linked} | {text(prose.title)}: {text(prose.summary)} | {text(prose.labels['Over'])} |"
    for members in files:
        yield from _section(members)
    yield ""
    yield f"Made from the docstrings of `src/normlab/norms/` by `{COMMAND}`."


def _section(members: Sequence[Topic]) -> Iterator[str]:
    prose = members[0].prose
    names = ", ".join(f"`{topic.name}`" for topic in members)
    yield from ("", f'<a id="{members[0].name}"></a>', "", f"## {text(prose.title)}", "")
    yield f"{names}: {text(prose.summary)}"
    for block in prose.blocks:
        yield ""
        yield block if block.startswith(" ") else text(block)
    if drawn := {name: options for topic in members for name, options in topic.picture.items()}:
        yield from ("", "```text", *picture(drawn), "```")
    yield ""
    for label in ("Over", "Cost", "When", "Source"):
        yield f"- **{label}**: {text(prose.labels[label])}"


def text(words: str) -> str:
    """Words whose stars, pipes and brackets mean nothing to markdown; code stays code."""
    parts = re.split(r"(`[^`]*`)", words)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_\[\]<|])", r"\\\1", part) for part in parts)

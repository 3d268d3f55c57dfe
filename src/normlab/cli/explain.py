"""normlab explain: what a norm or a word means."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.errors import NormlabError

if TYPE_CHECKING:
    from normlab.explain.topics import Topic

WIDEST = 88
"""Characters of a line: longer ones are hard to read."""


def explain(*topic: str, output: Path | None = None) -> None:
    """Explain a norm or a word, with a picture; bare, list the topics.

    Args:
        topic: a norm, as batch or layer, or a word, as covariance or momentum.
        output: write the whole family of norms to this file, as markdown.

    """
    from normlab.explain.topics import find, norms, words

    width = min(shutil.get_terminal_size().columns, WIDEST)
    if output is not None:
        if topic:
            raise NormlabError("a topic or --output", "both", "--output writes all norms")
        from normlab.explain.page import family_page
        from normlab.store.files import write_atomically

        write_atomically(output, family_page().encode())
        print(f"wrote {output}")
    elif not topic:
        alone = {name: topic for name, topic in norms().items() if name not in words()}
        for line in (*_list("Norms", alone, width), *_list("Words", words(), width)):
            print(line)
        print("normlab explain TOPIC tells more.")
    else:
        found = find("-".join(topic).lower().replace("_", "-"))
        for line in _told(found, width):
            print(line)
        if found.picture:
            # The words first: what follows waits for torch.
            print("", flush=True)
            from normlab.explain.picture import LEGEND, picture

            for line in (*picture(found.picture, width), *_wrap(LEGEND, width)):
                print(line)


def _list(head: str, topics: "Mapping[str, Topic]", width: int) -> Iterator[str]:
    yield head
    column = max(map(len, topics)) + 4
    for name, topic in topics.items():
        yield from _entry(f"  {name}", topic.prose.summary, column, width)
    yield ""


def _told(topic: "Topic", width: int) -> Iterator[str]:
    prose = topic.prose
    yield from _wrap(f"{prose.title}: {prose.summary}", width)
    for block in prose.blocks:
        yield ""
        for line in block.splitlines():  # a formula has several
            yield from _wrap(line, width, others=" " * 8 * line.startswith(" "))
    yield ""
    labels = prose.labels
    entries: dict[str, str] = {each: labels[each] for each in ("Over", "Cost", "When", "Source") if each in labels}
    if topic.source.suffix == ".py":
        call = f'normlab.nn.make_norm("{topic.name}", num_features, dim), in ' if topic.made else ""
        entries["Code"] = f"{call}normlab/norms/{topic.source.name}"
    if "See" in labels:
        entries["See"] = f"normlab explain {labels['See'].replace(', ', ' | ')}"
    if "Ask" in labels:
        entries["Ask"] = f"normlab study run {labels['Ask'].replace(',', '')}"
    for label, text in entries.items():
        yield from _entry(label, text, 8, width)


def _entry(head: str, text: str, column: int, width: int) -> list[str]:
    """A head, and beside it the text in a column of its own."""
    return _wrap(text, max(width, column + 20), head.ljust(column), " " * column)


def _wrap(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )

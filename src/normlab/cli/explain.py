"""normlab explain: what a norm or a word means, and what a rule of `normlab check` looks for."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from normlab.errors import NormlabError

if TYPE_CHECKING:
    from normlab.explain.rules import RuleTopic
    from normlab.explain.topics import Topic

WIDEST = 88
"""Characters of a line: longer ones are hard to read."""


def explain(*topic: str, rules: Annotated[bool, Parameter(negative="")] = False, output: Path | None = None) -> None:
    """Explain a norm, a word or a rule of `normlab check`, a norm with a picture; bare, list the topics.

    Args:
        topic: a norm, as batch or layer, a word, as covariance or momentum, or a rule, as NL101.
        rules: list the rules alone.
        output: write the whole family of norms to this file, or with --rules all rules, as markdown.

    """
    from normlab.explain.rules import find_rule, is_rule

    width = min(shutil.get_terminal_size().columns, WIDEST)
    if topic and (rules or output is not None):
        raise NormlabError("a topic, --rules or --output", "a topic and one of these", "--output writes all of them")
    if output is not None:
        _write(rules, output)
    elif not topic:
        for line in _listed(rules, width):
            print(line)
        print("normlab explain TOPIC tells more.")
    elif is_rule(topic[0]):
        for line in _told_rule(find_rule("-".join(topic)), width):
            print(line)
    else:
        _tell("-".join(topic).lower().replace("_", "-"), width)


def _write(rules: bool, output: Path) -> None:
    from normlab.explain.page import family_page
    from normlab.explain.rules_page import rules_page
    from normlab.store.files import write_atomically

    write_atomically(output, (rules_page() if rules else family_page()).encode())
    print(f"wrote {output}")


def _tell(name: str, width: int) -> None:
    from normlab.explain.topics import find

    found = find(name)
    for line in _told(found, width):
        print(line)
    if found.picture:
        # The words first: what follows waits for torch.
        print("", flush=True)
        from normlab.explain.picture import LEGEND, picture

        for line in (*picture(found.picture, width), *_wrap(LEGEND, width)):
            print(line)


def _listed(only_rules: bool, width: int) -> Iterator[str]:
    from normlab.explain.rules import rules
    from normlab.explain.topics import norms, words

    if not only_rules:
        alone = {name: topic.prose.summary for name, topic in norms().items() if name not in words()}
        yield from _list("Norms", alone, width)
        yield from _list("Words", {name: topic.prose.summary for name, topic in words().items()}, width)
    yield from _list("Rules", {name: f"{rule.severity}: {rule.title}" for name, rule in rules().items()}, width)


def _list(head: str, summaries: Mapping[str, str], width: int) -> Iterator[str]:
    yield head
    column = max(map(len, summaries)) + 4
    for name, summary in summaries.items():
        yield from _entry(f"  {name}", summary, column, width)
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


def _told_rule(rule: "RuleTopic", width: int) -> Iterator[str]:
    yield from _wrap(f"{rule.id} ({rule.severity}): {rule.title}", width)
    for paragraph in rule.why:
        yield ""
        yield from _wrap(paragraph, width)
    yield ""
    entries = {
        "Mend": rule.remedy + (f"; normlab.check(model, batch).{rule.mended_by} does it" if rule.mended_by else ""),
        "Check": f"normlab check pkg.module:build --select {rule.id}",
    }
    if rule.study:
        entries["Ask"] = f"normlab study run {rule.study}"
    entries["Source"] = rule.source
    for label, text in entries.items():
        yield from _entry(label, text, 8, width)


def _entry(head: str, text: str, column: int, width: int) -> list[str]:
    """A head, and beside it the text in a column of its own."""
    return _wrap(text, max(width, column + 20), head.ljust(column), " " * column)


def _wrap(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )

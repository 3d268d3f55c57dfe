"""What is printed: lines as they are, and tables, drawn in a terminal, tab-separated where a program reads them."""

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBROKEN = 8
"""Characters of a cell that is never wrapped: a number, an id, a short name."""


GAP = 2
"""Characters between two columns."""


def plain_console() -> Console:
    """Lines as they are: nothing that a user named is markup or an emoji, and no line is broken where it is read."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header; long cells wrap, and in a terminal too narrow for that there is no table."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    needed = 0
    for name, *cells in zip(header, *rows, strict=True):
        words = name.split("_")
        widths = [cell_len(text) for text in (*words, *cells)]
        table.add_column("\n".join(words), overflow="fold", no_wrap=max(widths) <= UNBROKEN)
        needed += min(max(widths), UNBROKEN) + GAP
    if not console.is_terminal or needed > console.width + GAP:
        for row in (header, *rows):
            print("\t".join(row))
        return
    for row in rows:
        table.add_row(*map(Text, row))  # as text: nothing a user named is markup
    console.print(table)

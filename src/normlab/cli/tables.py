"""Tables: drawn in a terminal, tab-separated where a program reads them."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header; in a terminal cells wrap rather than vanish."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in (header, *rows):
            print("\t".join(row))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: nothing a user named is markup
    console.print(table)

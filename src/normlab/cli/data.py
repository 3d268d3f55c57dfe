"""normlab data: fetch and verify data sets."""

import json as json_lines
from typing import Annotated

from cyclopts import Parameter

from normlab.cli.tables import print_table


def data(*names: str, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Fetch data sets and verify every byte; without a name, list them and where they lie.

    Args:
        names: fashion-mnist, digits, digits-8x8, or your own as pkg.module:callable.
        json: end with one line of JSON.

    """
    from normlab.data import NAMES, describe, load

    if not names:
        facts = [describe(name) for name in NAMES]
        if json:
            print(json_lines.dumps({fact.name: {"status": fact.status, "path": str(fact.path)} for fact in facts}))
        else:
            print_table(
                ("name", "status", "what", "where"),
                [(fact.name, fact.status, fact.summary, str(fact.path)) for fact in facts],
            )
        return
    loaded = {}
    for name in names:
        dataset = load(name, say=print)
        sizes = {
            split: len(part)
            for split in ("train", "validation", "test")
            if (part := getattr(dataset, split)) is not None
        }
        loaded[name] = {"examples": sizes, "shape": list(dataset.shape), "classes": dataset.classes}
        counted = ", ".join(f"{count} {split}" for split, count in sizes.items())
        print(f"{name}: {counted}; shape {dataset.shape}, {dataset.classes} classes; verified")
    if json:
        print(json_lines.dumps(loaded))

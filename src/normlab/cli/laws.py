"""normlab laws: which laws of normalization a layer keeps."""

import json as json_lines
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from normlab.cli.tables import print_table

if TYPE_CHECKING:
    from normlab.testing import Finding


def laws(
    norm: str | None = None,
    *,
    kind: str | None = None,
    dim: int = 2,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask a normalization for every law of its kind; bare, list the laws. Exit code 1 if one is broken.

    Args:
        norm: a built-in normalization (batch, frozen ...), or your own layer as pkg.module:callable; it gets
            num_features.
        kind: what it normalizes over what, if it does not say so by an attribute `kind`.
        dim: 1, 2 or 3 spatial dimensions, of a built-in one.
        json: print the findings as one line of JSON.

    """
    from normlab.errors import NormlabError
    from normlab.nn import find_norm
    from normlab.testing import all_laws, examine
    from normlab.testing.check import PRECISIONS

    if norm is None:
        header = ("law", "formula", "tolerance", "kinds")
        rows = [(law.name, law.formula, law.tolerance, ", ".join(sorted(law.kinds))) for law in all_laws()]
        if json:
            print(json_lines.dumps([dict(zip(header, row, strict=True)) for row in rows]))
        else:
            print_table(header, rows)
        return
    layers = find_norm(norm)
    if dim not in layers:
        raise NormlabError(f"--dim {', '.join(map(str, layers))}", dim)
    findings = examine(layers[dim], kind)
    if json:
        print(json_lines.dumps([_plain(finding) for finding in findings]))
    else:
        table: list[tuple[str, ...]] = []
        for name in dict.fromkeys(finding.law.name for finding in findings):
            found = [finding for finding in findings if finding.law.name == name]
            table.append((name, *(finding.outcome for finding in found), _why(found), found[0].law.formula))
        print_table(("law", *PRECISIONS, "why", "formula"), table)
    if any(finding.outcome == "fail" for finding in findings):
        raise SystemExit(1)


def _why(found: "list[Finding]") -> str:
    """What broke the law, else why it was not asked."""
    return next((each.why for each in sorted(found, key=lambda each: each.outcome != "fail") if each.why), "")


def _plain(finding: "Finding") -> dict[str, str]:
    return {
        "law": finding.law.name,
        "formula": finding.law.formula,
        "precision": finding.precision,
        "outcome": finding.outcome,
        "why": finding.why,
    }

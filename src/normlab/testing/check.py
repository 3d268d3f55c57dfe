"""Put a layer before every law of its kind, and say what was found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from normlab.errors import NormlabError, one_line
from normlab.testing.compare import Broken, describe
from normlab.testing.kinds import KINDS, check_kind
from normlab.testing.law import Law, all_laws
from normlab.testing.subject import DoesNotApply, Factory, Subject, subject

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

Outcome = Literal["pass", "fail", "does not apply"]


class LawBroken(AssertionError):  # noqa: N818 - what a test suite knows as a failure
    """What `check_norm` raises: each broken law with its formula, inputs, expected and got."""


@dataclass(frozen=True)
class Finding:
    """What became of one law in one precision; `why` is empty where it holds."""

    law: Law
    precision: str
    outcome: Outcome
    why: str = ""

    def __str__(self) -> str:
        return f"{self.law.name} ({self.law.formula}) in {self.precision}: {self.why or self.outcome}"


def check_norm(factory: Factory, kind: str | None = None) -> None:
    """Runs every law of the kind in float64 and float32 on layers that `factory(num_features)` makes.

    Args:
        factory: a layer class, or any function that makes a layer; it gets num_features, and some laws give it
            options (eps, momentum, group_size ...) and pass by a factory that does not take them. Its layers map
            (N, num_features, *spatial) to the same shape for some number of spatial dimensions.
        kind: a word of `KINDS`; None reads `factory.kind`.

    Raises:
        LawBroken: a law does not hold; it says which, on which inputs, what was expected and what came.
        NormlabError: no kind, or none that is known; a factory that makes no layer.

    """
    broken = [finding for finding in examine(factory, kind) if finding.outcome == "fail"]
    if broken:
        raise LawBroken("\n".join(str(finding) for finding in broken))


def examine(factory: Factory, kind: str | None = None) -> list[Finding]:
    """What became of every law in every precision, those for other kinds included."""
    kind = kind_of(factory, kind)
    subjects = [subject(factory, kind, dtype) for dtype in PRECISIONS.values()]
    return [judge(law, each) for law in all_laws() for each in subjects]


def judge(law: Law, subject: Subject) -> Finding:
    """One law on one subject. What the layer raises within a law breaks it."""
    precision = str(subject.dtype).removeprefix("torch.")
    if subject.kind not in law.kinds:
        return Finding(law, precision, "does not apply", f"not a law of {subject.kind}")
    try:
        law(subject)
    except DoesNotApply as reason:
        return Finding(law, precision, "does not apply", str(reason))
    except Broken as found:
        return Finding(law, precision, "fail", str(found))
    except Exception as error:
        raised = Broken("the layer", describe([subject.draw()]), "no error", one_line(error))
        return Finding(law, precision, "fail", str(raised))
    return Finding(law, precision, "pass")


def kind_of(factory: Callable[..., nn.Module], kind: str | None) -> str:
    """`kind`, or what the factory says of itself; NormlabError if neither is a word of KINDS."""
    found = kind if kind is not None else getattr(factory, "kind", None)
    if found is None:
        name = getattr(factory, "__name__", repr(factory))
        raise NormlabError(
            "the kind of the normalization",
            f"{name} without one",
            f'set kind = "..." on it, or give kind (--kind): one of {", ".join(KINDS)}',
        )
    return check_kind(found)

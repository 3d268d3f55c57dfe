"""A rule: one thing that can be wrong with a model's normalization, why it matters, and what mends it."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import normlab.rules
from normlab.errors import NormlabError, choose
from normlab.surgery import Surgery

Severity = Literal["error", "warning", "note"]
"""error: the model computes something else than was meant; warning: it likely trains or evaluates worse; note: it
could be simpler or faster.
"""
Found = tuple[str, str]
"""The path of a module ("" for the model itself), and what is wrong there, with the numbers."""


class Rule:
    """Subclasses are rules, one a file, in the folders of this room; each says what it looks for in `check`.

    The docstring says in a few sentences why it matters; it is what `normlab explain ID` tells.
    """

    id: ClassVar[str]
    """NL and three digits; the first is its folder's."""
    severity: ClassVar[Severity]
    title: ClassVar[str]
    """What is wrong, in a few words."""
    source: ClassVar[str]
    """The paper and section, the documentation, or the thread where people met it."""
    remedy: ClassVar[str]
    """What to do, in one sentence, as a command or a call where there is one."""
    study: ClassVar[str | None] = None
    """The built-in study that measures it."""
    mend: Callable[..., Surgery] | None = None
    """Given the paths that were found, and facts by the names of its further parameters, the surgery that mends them;
    it may raise Unknown to say why not. None where the model cannot be mended in place.
    """
    recalibrates: ClassVar[bool] = False
    """Whether the running statistics are wrong, or no longer fit once it is mended: training data set them right."""

    check: Callable[..., Iterable[Found]]
    """Its parameters are facts, by name: see `normlab.rules.facts`. It finds what is wrong, and changes nothing."""


@functools.cache
def all_rules() -> dict[str, Rule]:
    """Id to rule, in the order of the ids: every Rule in the folders of this room."""
    for info in pkgutil.walk_packages(normlab.rules.__path__, "normlab.rules."):
        importlib.import_module(info.name)
    rules = sorted((kind() for kind in Rule.__subclasses__()), key=lambda rule: rule.id)
    return {rule.id: rule for rule in rules}


def chosen(names: str | Iterable[str]) -> set[str]:
    """The ids that are meant by ids (NL101) or by their beginnings (NL1, all that begin so), or by one of them.

    Raises NormlabError on what is neither.
    """
    ids: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        meant = {each for each in all_rules() if name and each.startswith(name.upper())}
        if not meant:
            choose(all_rules(), name.upper(), "rule")
        ids |= meant
    return ids


def reasoned(ignored: str | Iterable[str]) -> dict[str, str]:
    """{id: reason} of `ID=reason` or `ID prefix=reason`; NormlabError on an unknown rule or without a reason."""
    reasons: dict[str, str] = {}
    for each in [ignored] if isinstance(ignored, str) else ignored:
        name, _, reason = each.partition("=")
        if not reason.strip():
            raise NormlabError("a rule to ignore as ID=reason", repr(each), "say why, for whoever reads it later")
        reasons |= dict.fromkeys(chosen([name.strip()]), reason.strip())
    return reasons

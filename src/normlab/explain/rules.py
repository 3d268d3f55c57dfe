"""The rules of `normlab check`, as their files say what they are: read, not imported, since they import torch."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

from normlab.errors import NormlabError, choose

ROOM = Path(__file__).parent.parent / "rules"
_MISREAD = str.maketrans("OILS", "0115")
_SAID = ("id", "severity", "title", "source", "remedy", "study", "recalibrates")


@dataclasses.dataclass(frozen=True)
class RuleTopic:
    """What `normlab explain NL101` tells: see `normlab.rules.Rule`."""

    id: str
    severity: str
    title: str
    why: tuple[str, ...]
    """Paragraphs, each on one line."""
    source: str
    remedy: str
    study: str | None
    mended_by: str
    """fix() or fix(data), which does it; empty where neither can."""
    folder: str
    """The kind of rule, in a sentence."""


@functools.cache
def rules() -> dict[str, RuleTopic]:
    """Id to rule, in the order of the ids."""
    found = [
        _topic(node, _folder(path.parent))
        for path in ROOM.glob("*/*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and "Rule" in [ast.unparse(base) for base in node.bases]
    ]
    return {rule.id: rule for rule in sorted(found, key=lambda rule: rule.id)}


def is_rule(name: str) -> bool:
    """Whether it looks like the id of a rule, be there one or not."""
    return re.fullmatch(r"NL\w{0,4}", name, re.IGNORECASE) is not None


def find_rule(name: str) -> RuleTopic:
    """The rule of this id, in capitals or not; NormlabError with the nearest if there is none."""
    read = "NL" + name.upper()[2:].translate(_MISREAD)
    if read != name.upper() and read in rules():
        raise NormlabError("a known rule", repr(name), f"did you mean {read}?")
    return choose(rules(), name.upper(), "rule")


def _topic(node: ast.ClassDef, folder: str) -> RuleTopic:
    said = {
        target.id: ast.literal_eval(each.value)
        for each in node.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name) and target.id in _SAID
    }
    mends = any(getattr(each, "name", None) == "mend" for each in node.body)
    mended_by = "fix(data)" if said.pop("recalibrates", False) else "fix()" if mends else ""
    blocks = re.split(r"\n\s*\n", ast.get_docstring(node) or "")
    return RuleTopic(
        **{"study": None} | said,
        why=tuple(" ".join(block.split()) for block in blocks),
        mended_by=mended_by,
        folder=folder,
    )


@functools.cache
def _folder(path: Path) -> str:
    """What a folder of rules says that it holds."""
    return ast.get_docstring(ast.parse((path / "__init__.py").read_text("utf-8"))) or ""

"""The topics: every norm, as its file's docstring explains it, and every file in texts/. Nothing imports torch."""

import ast
import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import normlab.norms
from normlab.errors import choose
from normlab.explain.prose import Prose, parse

TEXTS = Path(__file__).parent / "texts"


@dataclasses.dataclass(frozen=True)
class Topic:
    """What `normlab explain NAME` tells."""

    name: str
    prose: Prose
    source: Path
    """The file it is written in."""
    made: bool = False
    """Whether `make_norm` makes a norm of this name."""

    @property
    def picture(self) -> dict[str, dict[str, Any]]:
        """{norm: its options} of those that are drawn: as the text says, else batch norm and the norm itself."""
        if "Picture" in self.prose.labels:
            drawn = [each.split() for each in self.prose.labels["Picture"].split(",")]
            return {name: dict(map(_option, options)) for name, *options in drawn}
        return {"batch": {}, self.name: {}} if self.made else {}


def topics() -> dict[str, Topic]:
    """Name to topic: the norms, then the words. A word's text goes before a docstring of the same name."""
    return norms() | words()


def find(name: str) -> Topic:
    """The topic of this name; NormlabError with the nearest if there is none."""
    return choose(topics(), name, "topic")


@functools.cache
def norms() -> dict[str, Topic]:
    """Every file of norms/ that explains itself, batch first: under the names of its FAMILY, or its own."""
    found: dict[str, Topic] = {}
    for path in sorted(Path(normlab.norms.__path__[0]).glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        family, prose = [*_family(tree)], parse(ast.get_docstring(tree) or "")
        if family or "Over" in prose.labels:
            names = family or [path.stem.replace("_", "-")]
            found |= {name: Topic(name, prose, path, made=bool(family)) for name in names}
    return {"batch": found["batch"]} | found


@functools.cache
def words() -> dict[str, Topic]:
    """Every file of texts/."""
    return {path.stem: Topic(path.stem, parse(path.read_text("utf-8")), path) for path in sorted(TEXTS.glob("*.txt"))}


def _family(tree: ast.Module) -> Iterator[str]:
    """The names in FAMILY, as the source has them."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="FAMILY")], value=ast.Dict(keys=keys)):
                yield from (str(ast.literal_eval(key)) for key in keys if key is not None)


def _option(pair: str) -> tuple[str, Any]:
    key, _, value = pair.partition("=")
    return key, json.loads(value)

"""Compare: the commonest question, which of two is better, as a study of two arms that needs no file."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from normlab import data
from normlab.errors import NormlabError
from normlab.lab import draw
from normlab.lab.ask import Ask, ask
from normlab.lab.measures import accuracy, running_accuracy, training_accuracy
from normlab.lab.plan import STEP, every_arm, tuned
from normlab.lab.rules import equivalent, superior
from normlab.lab.sides import Side
from normlab.lab.sizes import RECIPE, sizes
from normlab.lab.study import Results, Study
from normlab.lab.verdict import told
from normlab.store import Finding
from normlab.surgery import to_plain

MARGIN = 0.004
"""A difference in accuracy below which two are the same, unless another is asked for."""
GRID = 2
"""Steps of sqrt(10) around the recipe's rate, either way, in which each side's best is looked for."""


@dataclasses.dataclass(frozen=True)
class Comparison(Ask):
    """Which of two is better: its key tells apart what stands behind two names, and how rates were chosen."""

    sides: tuple[Side, ...]

    @property
    def key(self) -> str:
        """Sixteen hex digits of the question; seeds can be added to it, and a changed margin shows."""
        arms = [[side.name, [*map(to_plain, side.arm.surgeries)], side.arm.changes] for side in self.sides]
        identity = [super().key, arms, repr(self.study.plan)]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def subject(self) -> str:
        """Where both sides are models these are what is trained."""
        return "each model" if not self.of_norms and self._all("model") else super().subject

    @property
    def of_norms(self) -> bool:
        """Whether the model must have batch norms."""
        return any(side.kind == "norm" for side in self.sides)

    def _all(self, kind: str) -> bool:
        return all(side.kind == kind for side in self.sides)


def compare(
    sides: Sequence[Side],
    *,
    margin: float = MARGIN,
    tune: bool = False,
    changes: dict[str, Any] | None = None,
    data_name: str | None = None,
    **how: Any,
) -> Comparison:
    """The two as a study; `changes` are fields of the recipe that both start from, `how` is as `ask` takes it.

    Raises NormlabError where they are the same, are meant for different data, or cannot be asked about.
    """
    one, other = sides
    if one.name == other.name:
        raise NormlabError("two to compare", f"{one.name} twice")
    if not 0 < margin < 1:
        raise NormlabError("a margin between 0 and 1, a share", margin, "0.004 is 0.4 points")
    if how.get("model") is not None and all(side.kind == "model" for side in sides):
        raise NormlabError(
            "--model where norms are compared", f"two models and --model {how['model']}", "leave it out"
        )
    changes = changes or {}
    study = study_of(one, other, margin, tune, changes.get("lr", RECIPE.lr))
    if how.get("model") is not None:  # as the study's own: no side is left out for what it changes in the model
        study = dataclasses.replace(study, recipe=RECIPE.replace(model=how["model"]))
    plain = ask(f"compare {one.name} and {other.name}", study, data_name=_data(sides, data_name), **how)
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    base = plain.base.replace(**changes)
    if tune and not base.validation and data.load(base.data).validation is None:
        raise NormlabError(f"validation data in {base.data} to tune rates by", "none", "leave out --tune")
    comparison = Comparison(**fields | {"base": base}, sides=(one, other))
    if comparison.arms[one.name] == comparison.arms[other.name]:
        raise NormlabError("two to compare", f"{one.name} and {other.name}, which train the same recipe")
    return comparison


def _data(sides: Sequence[Side], name: str | None) -> str | None:
    named = dict.fromkeys([*([name] if name else []), *(side.data for side in sides if side.data)])
    if len(named) > 1:
        raise NormlabError("both sides on the same data", " and ".join(named), "name one of them in both")
    return next(iter(named), None)


def study_of(one: Side, other: Side, margin: float, tune: bool, lr: float) -> Study:
    """Two arms, and the rules that say whether they are the same."""
    a, b = one.name, other.name
    rates = tuple(float(f"{lr * STEP**step:.3g}") for step in range(-GRID, GRID + 1))
    rate = (
        f"Each side has the best of the rates {', '.join(f'{each:g}' for each in rates)}, by validation accuracy."
        if tune
        else f"Both have the learning rate {lr:g} unless a recipe says otherwise; another may favour the other "
        "(--tune gives each its own best)."
    )
    own = [side.name for side in (one, other) if side.keeps_its_own]
    measure, beside = (running_accuracy, accuracy) if own else (accuracy, running_accuracy)
    statistics = (
        f"Under running statistics, since those of {' and '.join(own)} cannot be recomputed: recomputed for one side "
        "alone they would favour it."
    )
    return Study(
        question=f"Which is better, {a} or {b}?",
        claim=f"Neither: their accuracies differ by less than {100 * margin:g} points.",
        source="normlab compare",
        recipe=RECIPE,
        arms={a: one.arm, b: other.arm},
        measures=(measure, beside, training_accuracy),
        rules=(equivalent(measure.name, a, b, margin),),
        beside=(
            superior(measure.name, a, b),
            superior(measure.name, b, a),
            equivalent(beside.name, a, b, margin),
        ),
        answers=functools.partial(answer, a, b, margin),
        plan=tuned(rates) if tune else every_arm,
        sizes=sizes(),
        figures=(
            draw.points(measure.name),
            draw.effects(measure.name, margin),
            draw.over_epochs("train_accuracy", "training accuracy", percent=True),
            *([draw.rates()] if tune else []),
        ),
        caveats=(
            rate,
            *([statistics] if own else []),
            "One data set, at one size; a seed without a usable trial counts on neither side.",
        ),
    )


def answer(a: str, b: str, margin: float, results: Results, deciding: Finding) -> str:
    """In one sentence which of the two is better and by how much, or that they are the same, or that it is open."""
    lost = [
        f"with {arm!r} {count} of {len({cell.seed for cell in results.cells})} seeds are unusable"
        for arm, count in results.unusable.items()
        if count
    ]
    counted = "".join(f"; {each}" for each in lost)
    within = f"{100 * margin:g} points"
    if deciding.effect is None or deciding.low is None or deciding.high is None:
        few = "fewer than two seeds have usable trials on both sides"
        return f"Undecided: {'; '.join(lost) if lost else few}."
    measure, (low, high) = results.measures[deciding.measure], sorted((deciding.low, deciding.high))
    better, worse = (a, b) if deciding.effect >= 0 else (b, a)
    if deciding.effect < 0:
        low, high = -high, -low
    by, found = (
        told(abs(deciding.effect), measure),
        f"({told(low, measure)} to {told(high, measure)}, n = {deciding.n})",
    )
    if deciding.word == "supported":
        ahead = f"{better} is ahead by {by}" if deciding.effect else "neither is ahead"
        return f"The same within {within}: {ahead} {found}{counted}."
    if deciding.word == "contradicted":
        return f"{better} is better than {worse} by {by} {found}{counted}."
    if low > 0:
        return (
            f"{better} is better than {worse}, by {by} {found}; whether by more than {within} is undecided{counted}."
        )
    return f"Undecided: {better} is ahead of {worse} by {by} {found}{counted}."

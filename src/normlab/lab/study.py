"""Study and Arm: a question, the arms that are compared, what is measured, and the rule, all before the run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from normlab.errors import NormlabError, choose
from normlab.lab.rules import Rule
from normlab.store import Recipe, Record
from normlab.surgery import Surgery, to_plain


class Arm:
    """One side of a comparison: surgeries on the model, and changes to the recipe.

    Arm(), Arm(remove_bias()), Arm(swap("batch", "none"), lr=0.1)
    """

    def __init__(self, *surgeries: Surgery, **changes: Any) -> None:
        self.surgeries = surgeries
        self.changes = changes

    def recipe(self, base: Recipe) -> Recipe:
        """The base with the changes made and the surgeries behind its own; NormlabError for an unknown field."""
        for name in self.changes:
            choose(Recipe.model_fields, name, "field of a recipe")
        plain = tuple(to_plain(surgery) for surgery in self.surgeries)
        return base.replace(**self.changes, surgeries=(*base.surgeries, *plain))


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number of a record, under a name that rules use."""

    name: str
    title: str
    of: Callable[[Record], float | None]
    """None where the record has none; such a trial does not count."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of the question is asked: seeds, and changes to the recipe."""

    seeds: int
    changes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of one arm with one seed."""

    arm: str
    recipe: Recipe


Plan = Callable[["Study", Recipe, int, Mapping[Recipe, Record]], list[Trial]]
"""(study, base recipe, seeds, records so far) -> the trials that are wanted; pure, and called until all are there."""


def every_arm(study: "Study", base: Recipe, seeds: int, records: Mapping[Recipe, Record]) -> list[Trial]:
    """Each arm with each seed from 0 on."""
    return [
        Trial(name, arm.recipe(base).replace(seed=seed)) for seed in range(seeds) for name, arm in study.arms.items()
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A claim put to the test. The verdict is that of the weakest rule."""

    question: str
    claim: str
    source: str
    recipe: Recipe
    arms: Mapping[str, Arm]
    measures: Sequence[Measure]
    rules: Sequence[Rule]
    sizes: Mapping[str, Size]
    plan: Plan = every_arm
    caveats: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = {measure.name: measure for measure in self.measures}
        for rule in self.rules:
            choose(known, rule.measure, "measure of the study")
            if unknown := [arm for arm in _arms_of(rule) if arm not in self.arms]:
                raise NormlabError("rules about arms of the study", unknown, f"there are {', '.join(self.arms)}")

    def base(self, size: str) -> tuple[Recipe, int]:
        """The recipe and the number of seeds of a size."""
        chosen = choose(self.sizes, size, "size")
        return self.recipe.replace(**chosen.changes), chosen.seeds


def _arms_of(rule: Rule) -> list[str]:
    """The arms that a rule names in its fields, but for its measure."""
    named: list[str] = []
    for field in dataclasses.fields(rule):  # type: ignore[arg-type]
        value = getattr(rule, field.name)
        if field.name not in ("measure", "predictor"):
            named += [value] if isinstance(value, str) else value if isinstance(value, tuple) else []
    return named

"""Study and Arm: a question, the arms that are compared, what is measured, and the rules, all before the run."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any, get_args

import pydantic

from normlab.errors import NormlabError, choose
from normlab.lab.cell import Cell
from normlab.lab.plan import Plan, every_arm
from normlab.lab.rules import Outcomes, Rule, about
from normlab.store import Recipe
from normlab.store.verdict import Figure, Finding, Word
from normlab.surgery import Surgery, freeze, keep, swap, to_plain


class Arm:
    """One side of a comparison: surgeries on the model, and changes to the recipe.

    Arm(), Arm(remove_bias()), Arm(swap("batch", "none"), lr=0.1)
    """

    def __init__(self, *surgeries: Surgery, **changes: Any) -> None:
        for name in changes:
            choose(Recipe.model_fields, name, "field of a recipe")
        self.surgeries = surgeries
        self.changes = changes

    def __str__(self) -> str:
        parts = [*map(str, self.surgeries), *(f"{name} {value}" for name, value in self.changes.items())]
        return ", ".join(parts) or "the recipe as it is"

    def recipe(self, base: Recipe, norm: str | None = None) -> Recipe:
        """The base with the changes made and the surgeries behind its own; what batch norms are left, swapped for
        `norm`. Options of the model are added to the base's.

        Raises NormlabError for what makes no recipe, and where the arm asks about batch norm's own parts and
        `norm` has none of them.
        """
        surgeries = [*self.surgeries]
        if norm is not None and not any(map(_leaves_none, surgeries)):
            if any(isinstance(each, freeze) for each in surgeries):
                raise NormlabError("batch norm, whose parts this study freezes", norm, "leave out --norm")
            surgeries.append(swap("batch", norm))
        changes = dict(self.changes)
        if "model_options" in changes:
            changes["model_options"] = base.model_options | changes["model_options"]
        return _changed(base, "an arm", **changes, surgeries=(*base.surgeries, *map(to_plain, surgeries)))


def _changed(recipe: Recipe, what: str, **changes: Any) -> Recipe:
    """The recipe with these changes; NormlabError where they are none of its fields, or make no recipe."""
    for name in changes:
        choose(Recipe.model_fields, name, "field of a recipe")
    try:
        return recipe.replace(**changes)
    except pydantic.ValidationError as error:
        (first, *_) = error.errors()
        where = ".".join(map(str, first["loc"]))
        raise NormlabError(f"{what} that changes {where}: {first['msg']}", first["input"]) from error


def _leaves_none(surgery: Surgery) -> bool:
    """Whether no batch norm stands after it."""
    return isinstance(surgery, swap) or (
        isinstance(surgery, keep) and not (surgery.positions or surgery.paths or surgery.stages)
    )


TOLD = ("effect", "low", "high", "n", "rule")
"""Of the finding that decided, for an answer."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number for each arm and seed, under a name that rules use."""

    name: str
    title: str
    of: Callable[[Cell], float | None]
    """None where there is none; such a cell does not count."""
    percent: bool = False
    """Whether it is a share in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of the question is asked: seeds, changes to the recipe, and which arms."""

    seeds: int
    changes: Mapping[str, Any]
    arms: tuple[str, ...] = ()
    """All of them where none is named."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What a study's figures are drawn from."""

    cells: Sequence[Cell]
    measures: Mapping[str, Measure]
    outcomes: Outcomes
    findings: Sequence[Finding]
    unusable: Mapping[str, int]
    """Arm to how many of its seeds count apart."""


Drawing = Callable[[Results], Figure]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A claim put to the test. The verdict is that of the weakest rule.

    Raises NormlabError where a part is none of its kind, or names a measure, an arm or a field that is not there.
    """

    question: str
    claim: str
    source: str
    recipe: Recipe
    arms: Mapping[str, Arm]
    measures: Sequence[Measure]
    rules: Sequence[Rule]
    answers: Mapping[Word, str] | Callable[[Results, Finding], str]
    """The answer in one sentence, for each word that the rules can say; {effect}, {low}, {high} and {n} are those
    of the finding that decided. Or a function that says it, from all results and the finding that decided.
    """
    sizes: Mapping[str, Size]
    beside: Sequence[Rule] = ()
    """Shown beside the verdict, which they do not decide."""
    plan: Plan = every_arm
    figures: Sequence[Drawing] = ()
    timed: bool = False
    """Whether a step of each arm is timed once all trials are done: serially, the arms in turns."""
    caveats: Sequence[str] = ()
    original: str = ""
    """The figure that the source gives, where it was read there; none is quoted at second hand."""
    thread: tuple[int, ...] = ()
    """The lines of the thread that it answers."""
    with_norm: Callable[[str], "Study"] | None = None
    """The study with an arm for a norm of the user's (--norm), where that is not to stand in batch norm's place."""

    def __post_init__(self) -> None:
        self._check_kinds()
        for name, size in self.sizes.items():
            if not isinstance(size.seeds, int) or size.seeds < 1:
                raise NormlabError(f"seeds of size {name} as a whole number of at least 1", repr(size.seeds))
            self.recipe_of(name)
        self._check_rules()

    def _check_kinds(self) -> None:
        parts: list[tuple[str, type, Iterable[Any]]] = [
            ("question, claim and source", str, [self.question, self.claim, self.source]),
            ("the recipe", Recipe, [self.recipe]),
            ("each arm", Arm, self.arms.values()),
            ("each measure", Measure, self.measures),
            ("each size", Size, self.sizes.values()),
            ("each figure", Callable, self.figures),  # type: ignore[list-item]
        ]
        for what, kind, values in parts:
            for value in values:
                if not isinstance(value, kind):
                    raise NormlabError(f"type {kind.__name__} for {what} of a study", repr(value))

    def _check_rules(self) -> None:
        if not self.rules:
            raise NormlabError("a rule at least", "none", 'a measurement without a claim has answered("accuracy")')
        for word, answer in () if callable(self.answers) else self.answers.items():
            choose(dict.fromkeys(get_args(Word)), word, "word of a verdict")
            for _, part, _, _ in Formatter().parse(answer):
                if part is not None:
                    choose(dict.fromkeys(TOLD), part, "part of an answer")
        known = {measure.name: measure for measure in self.measures}
        for rule in (*self.rules, *self.beside):
            for name in rule.measures:
                choose(known, name, "measure of the study")
            if unknown := [arm for arm in rule.arms if arm not in self.arms]:
                raise NormlabError("rules about arms of the study", unknown, f"there are {', '.join(self.arms)}")

    def recipe_of(self, size: str) -> Recipe:
        """The base recipe at a size; NormlabError if the study has no such size."""
        return _changed(self.recipe, f"size {size}", **choose(self.sizes, size, "size").changes)

    def at(self, size: str) -> "Study":
        """The study of the arms of a size: its rules about them alone; NormlabError if it has no such size."""
        chosen = choose(self.sizes, size, "size").arms
        if not chosen:
            return self
        return dataclasses.replace(
            self,
            arms={arm: choose(self.arms, arm, "arm of the study") for arm in chosen},
            rules=[rule for each in self.rules if (rule := about(each, chosen))],
            beside=[rule for each in self.beside if (rule := about(each, chosen))],
        )

"""Ask: a study at a size, of a model, data and norm that may be the user's own, made to fit them."""

import dataclasses
import functools
import hashlib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from normlab import data, models
from normlab.data import Dataset, Examples, Loaded
from normlab.errors import NormlabError, bind
from normlab.lab.plan import Arms
from normlab.lab.rules import about
from normlab.lab.study import Study
from normlab.store import Recipe
from normlab.surgery.find import batch_norms
from normlab.train.device import resolve
from normlab.train.prepare import prepare

MOST_EPOCHS = 50
"""Passes over a data set that is much smaller than the study's own."""


@dataclasses.dataclass(frozen=True)
class Ask:
    """A study at a size: everything that decides its trials."""

    name: str
    study: Study
    size: str
    seeds: int
    base: Recipe
    norm: str | None
    command: str

    @functools.cached_property
    def arms(self) -> Arms:
        """Arm to its recipe, resolved, with seed 0."""
        return {name: arm.recipe(self.base, self.in_place) for name, arm in self.study.arms.items()}

    @property
    def in_place(self) -> str | None:
        """The norm that stands in batch norm's place: the user's, unless it has an arm of its own."""
        return None if self.study.with_norm else self.norm

    @property
    def all_seeds(self) -> Sequence[int]:
        """From 0 on."""
        return range(self.seeds)

    @property
    def subject(self) -> str:
        """The model in words."""
        return self.base.model + "".join(f", {name} {value}" for name, value in self.base.model_options.items())

    @property
    def of_norms(self) -> bool:
        """Whether the model must have batch norms."""
        return True

    @property
    def rules(self) -> tuple[str, ...]:
        """In words, as they are fixed before the first trial."""
        beside = (f"beside: {rule}" for rule in self.study.beside)
        return (*map(str, self.study.rules), *beside)

    @property
    def key(self) -> str:
        """Sixteen hex digits of the question: seeds can be added to it."""
        identity = [self.name, self.size, self.base.model_dump(mode="json"), self.norm]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def ask(
    name: str,
    study: Study,
    *,
    size: str,
    seeds: int | None = None,
    model: str | None = None,
    model_options: dict[str, object] | None = None,
    data_name: str | None = None,
    norm: str | None = None,
    command: str = "",
) -> Ask:
    """The study at a size, with a user's own model, data or norm in the place of its own.

    Raises NormlabError where they do not serve: no batch norm to ask about, one class, too few examples, a loader
    where batch sizes are compared.
    """
    base = study.recipe_of(size)
    if norm is not None and study.with_norm:
        study = study.with_norm(norm)
    study = study.at(size)
    if model is not None:
        models.find(model)
        if model != base.model:
            study = _of_any_model(name, study)
            base = base.replace(model=model, model_options={})
    if model_options:
        bind(models.find(base.model), model_options, f"model {base.model}")
        base = base.replace(model_options=base.model_options | model_options)
    if data_name is not None:
        base = base.replace(data=data_name)
    base = resolve(base.replace(threads=1))
    dataset = _load(base.data)
    if isinstance(dataset.train, Loaded) and any("batch_size" in arm.changes for arm in study.arms.values()):
        raise NormlabError(
            f"examples as (x, y) for study {name}, which compares batch sizes",
            "a DataLoader, whose batches are its own",
            "return them as tensors",
        )
    base = fit_to(base, dataset)
    wanted = study.sizes[size].seeds if seeds is None else seeds
    return Ask(name, study, size, wanted, base, norm, command)


@functools.lru_cache(maxsize=4)
def _load(name: str) -> Dataset:
    """Read once for however many studies."""
    return data.load(name)


def _of_any_model(name: str, study: Study) -> Study:
    """The study without the arms of other models and what is said of them; and without those that need options of
    its own model, of which nothing may be claimed.
    """
    own = [arm for arm, each in study.arms.items() if "model" not in each.changes]
    rules = [rule for each in study.rules if (rule := about(each, own))]
    arms = {arm: study.arms[arm] for arm in own if "model_options" not in study.arms[arm].changes}
    if any(not set(rule.arms) <= arms.keys() for rule in rules) or not rules or not arms:
        raise NormlabError("a study that can be asked of any model", f"{name}, which compares models of its own")
    beside = [rule for each in study.beside if (rule := about(each, arms))]
    return dataclasses.replace(study, arms=arms, rules=rules, beside=beside)


def command(name: str, size: str, how: Mapping[str, Any]) -> str:
    """The command line that asks the same again; `how` is what `ask` was given besides."""
    words = ["normlab", "study", "run", name, "--size", size]
    for option in ("model", "data_name", "norm", "seeds"):
        if how.get(option) is not None:
            words += [f"--{option.removesuffix('_name')}", str(how[option])]
    for key, value in (how.get("model_options") or {}).items():
        words += ["--model-options", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def fit_to(base: Recipe, dataset: Dataset) -> Recipe:
    """The recipe for a data set that may be smaller than the one it was written for.

    As many examples are seen as were meant, in more passes; a tenth at most validates. Raises NormlabError for
    fewer than two classes, and for fewer than ten examples.
    """
    train = dataset.train
    if dataset.test is None and "test" in base.evaluate:  # then what validates must do
        base = base.replace(evaluate=tuple(dict.fromkeys((*base.evaluate, "validation"))))
    # Of labels, not of classes: theirs count from 0.
    labels = len(train.y.unique()) if isinstance(train, Examples) else dataset.classes
    if labels < 2:
        raise NormlabError(f"at least two classes in {dataset.name}", labels, "every model is right on one")
    if not isinstance(train, Examples):
        return base.replace(train_examples=None, validation=0, precise_examples=None)
    if len(train) < 10:
        raise NormlabError(f"at least ten training examples in {dataset.name}", len(train))
    validation = 0 if dataset.validation is not None else min(base.validation or len(train) // 10, len(train) // 10)
    if dataset.validation is not None or dataset.test is not None:
        validation = min(validation, base.validation)
    left = len(train) - validation
    wanted = base.train_examples or left
    used = min(wanted, left)
    batch_size = min(base.batch_size, used)
    if used % batch_size == 1:  # whose batch norms would see one value
        used -= 1
    epochs = base.epochs
    if wanted > used + 1:
        epochs = min(MOST_EPOCHS, math.ceil(base.epochs * wanted / used))
    precise = base.precise_examples and min(base.precise_examples, used)
    return base.replace(
        validation=validation,
        train_examples=None if used == left else used,
        batch_size=batch_size,
        epochs=epochs,
        precise_examples=precise,
    )


def rehearse(asked: Ask) -> None:
    """Build every arm and pass a batch through it, before the first trial.

    Raises NormlabError, naming the arm, for what would fail in every trial; where it asks `of_norms`, for a
    model without batch norms too.
    """
    if asked.of_norms and not batch_norms(prepare(asked.base.replace(surgeries=()), lambda _: None)[1]):
        raise NormlabError(
            f"a model with batch norms for study {asked.name}",
            f"none in {asked.base.model}",
            "give it some, or name another",
        )
    for name, recipe in asked.arms.items():
        try:
            prepare(recipe.replace(lanes=False), lambda _: None)  # lanes refuse nothing, and take half of the time
        except NormlabError as error:
            error.args = (f"arm {name!r} of study {asked.name}: {error}",)
            raise

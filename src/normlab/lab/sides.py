"""Sides: what a person means by one word of `normlab compare`: a norm, a model, or a recipe."""

import contextlib
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import nn

from normlab import models
from normlab.errors import NormlabError, choose, is_reference, load, parameters_of
from normlab.lab.study import Arm
from normlab.nn import find_norm, make_norm, norm_names
from normlab.store import Recipe
from normlab.surgery import from_plain, swap
from normlab.surgery.find import keeps_its_own

Kind = Literal["norm", "model", "recipe"]

NOT_OF_A_SIDE = {
    "seed": "--seeds are both sides' own",
    "device": "it is the machine's",
    "threads": "it is the machine's",
}


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    kind: Kind
    arm: Arm
    data: str | None = None
    """Where a recipe names its data."""
    keeps_its_own: bool = False
    """Whether it is a norm with running statistics that no recalibration knows."""

    def __str__(self) -> str:
        return f"{self.name} (a {self.kind})"


def side(text: str, kind: Kind | None = None) -> Side:
    """What is meant: a .json file is a recipe; a name is a norm's, else a model's; of pkg.module:callable a class
    that takes `num_features` first is a norm, anything else a model. `kind` decides where it is given.

    Raises NormlabError where there is no such thing.
    """
    kind = kind or _kind(text)
    if kind == "recipe":
        return _recipe(text)
    if kind == "model":
        models.find(text)
        return Side(text, kind, Arm(model=text))
    find_norm(text)
    arm = Arm() if text == "batch" else Arm(swap("batch", text))
    return Side(text, kind, arm, keeps_its_own=any(map(keeps_its_own, _layer(text).modules())))


def _layer(norm: str) -> nn.Module:
    """One to look at, of images or, if it takes none, of features; whoever trains it says what is wrong with it."""
    for dim in (2, 1):
        with contextlib.suppress(Exception):
            return make_norm(norm, 4, dim)
    return nn.Identity()


def _kind(text: str) -> Kind:
    if text.lower().endswith(".json"):
        return "recipe"
    if is_reference(text):
        return "norm" if _takes_features(text) else "model"
    known: dict[str, Kind] = {**dict.fromkeys(models.MODELS, "model"), **dict.fromkeys(norm_names(), "norm")}
    return choose(known, text, "norm, model or recipe.json", own=True)


def _takes_features(reference: str) -> bool:
    """Whether it is a layer class for `make_norm`; NormlabError for a class that is neither that nor a model."""
    found = load(reference, "a norm or a model")
    if not inspect.isclass(found):
        return next(iter(parameters_of(found)), "") == "num_features"
    if not issubclass(found, nn.Module):
        raise NormlabError(f"{reference} as a layer, a model, or a function that builds one", f"a {found.__name__}")
    parameters = [*parameters_of(found).values()]
    if parameters and parameters[0].name == "num_features":
        return True
    needed = [each.name for each in parameters if each.default is each.empty and each.kind <= each.KEYWORD_ONLY]
    needed = [name for name in needed if name not in ("args", "kwargs")]
    if needed:
        raise NormlabError(
            f"{reference} to take num_features first, as a norm, or nothing, as a model",
            f"one that needs {', '.join(needed)}",
            "say which it is: --as norm, or --as model",
        )
    return False


def _recipe(path: str) -> Side:
    try:
        fields: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NormlabError(
            "a recipe as a JSON file", f"{path}: {error.strerror}", "name a file that is there"
        ) from error
    except ValueError as error:
        raise NormlabError(f"{path} as JSON", str(error), 'as {"lr": 0.1, "optimizer": "momentum"}') from error
    if not isinstance(fields, dict):
        raise NormlabError(f"{path} as a JSON object", f"a {type(fields).__name__}", 'as {"lr": 0.1}')
    for name in fields:
        choose(Recipe.model_fields, name, "field of a recipe")
        if name in NOT_OF_A_SIDE:
            raise NormlabError(f"{path} without {name}", f"{name} {fields[name]}", NOT_OF_A_SIDE[name])
    surgeries = fields.pop("surgeries", ())
    data = fields.pop("data", None)
    if not isinstance(surgeries, list | tuple) or not all(isinstance(each, dict) for each in surgeries):
        raise NormlabError(f"surgeries in {path} as a list of objects", json.dumps(surgeries))
    try:
        Recipe(**fields)
    except ValidationError as error:
        wrong = error.errors()[0]
        wanted = wrong["msg"].partition(" should ")[2].partition(", unable to")[0]
        raise NormlabError(f"{wrong['loc'][0]} in {path} to {wanted}", repr(wrong["input"])) from error
    return Side(path, "recipe", Arm(*map(from_plain, surgeries), **fields), data)

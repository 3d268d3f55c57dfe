"""Networks by name, the user's own included, and the random streams that two of them share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from normlab.errors import NormlabError, bind, choose, is_reference, load, one_line
from normlab.models.deep import deep
from normlab.models.inception import inception
from normlab.models.lenet import lenet
from normlab.models.mlp import mlp
from normlab.models.parts import parameter_count
from normlab.models.resnet import resnet8, resnet20, resnet56
from normlab.models.streams import DropoutStreams, generator, key, seed_everything_else
from normlab.surgery.generators import borrowed

__all__ = [
    "MODELS",
    "DropoutStreams",
    "borrowed",
    "build",
    "deep",
    "find",
    "generator",
    "inception",
    "key",
    "lenet",
    "mlp",
    "parameter_count",
    "resnet8",
    "resnet20",
    "resnet56",
    "seed_everything_else",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "deep": deep,
    "inception": inception,
    "lenet": lenet,
    "mlp": mlp,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet56": resnet56,
}


def find(name: str) -> Callable[..., nn.Module]:
    """The function that builds the model of this name; NormlabError if there is none."""
    return load(name, "a model") if is_reference(name) else choose(MODELS, name, "model", own=True)


def build(name: str, options: dict[str, Any], *, input_shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """The network `name` with its options, with initial weights of `seed`.

    Ours is told the shape of an example and the number of classes; the user's callable gets its options
    alone, under a global generator seeded for it.

    Raises NormlabError on an unknown name or option, and where the user's callable raises or gives no module.
    """
    function = find(name)
    if name in MODELS:
        options = {"input_shape": tuple(input_shape), "classes": classes, "seed": seed, **options}
    bind(function, options, f"model {name}")
    with borrowed():
        torch.default_generator.manual_seed(key(seed, "model"))
        try:
            model = function(**options)
        except NormlabError:
            raise
        except Exception as error:
            raise NormlabError(f"model {name} to build", one_line(error), "--debug shows where") from error
    if not isinstance(model, nn.Module):
        raise NormlabError(f"model {name} to return an nn.Module", f"a {type(model).__name__}")
    return model

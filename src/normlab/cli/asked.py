"""The network and the batch that `normlab measure` asks."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import cyclopts
from cyclopts import Parameter
from pydantic import ValidationError

from normlab.cli.options import parse_options, parse_shape
from normlab.errors import NormlabError, is_reference
from normlab.store import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from normlab.data import Dataset

Say = Callable[[str], None]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Asked:
    """What is measured on what, and where the answer goes."""

    model_options: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = ()
    """Options of the model, as k=v."""
    data: str | None = None
    """Training examples of fashion-mnist, digits, digits-8x8, or your own as pkg.module:callable. Default: digits."""
    batch: str | None = None
    """Normal random numbers of this shape in the place of data, with random classes, as 32,3,224,224."""
    classes: int = 10
    """Classes of --batch."""
    examples: int = 256
    """How many of the data, at most."""
    mode: Literal["train", "eval"] = "train"
    """train normalizes by the statistics of the batch, eval by running ones."""
    seed: int = 0
    """Of initial weights, of --batch and of all that is drawn."""
    device: str = "auto"
    """Where it runs: auto, cpu, cuda, cuda:N or mps."""
    output: Annotated[Path | None, Parameter(name=("--output", "--plot"))] = None
    """Draw the answer into this file: .png, .svg, .html, or .json, as Vega-Lite."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print every number as one line of JSON, and nothing else."""


class Subject(NamedTuple):
    """A network in its mode, and a batch: x (N, ...) and classes y (N,), on its device."""

    model: "nn.Module"
    x: "Tensor"
    y: "Tensor"


def subject(model: str, asked: Asked, say: Say) -> Subject:
    """Built, moved and rehearsed as for a training of it.

    Raises NormlabError where model or data cannot be had, do not fit, or are not said.
    """
    import torch

    from normlab.train.device import resolve
    from normlab.train.prepare import prepare, to_device

    if asked.data is None and asked.batch is None and is_reference(model):
        raise NormlabError("--data or --batch for a model of yours", "neither", "as --batch 32,3,224,224")
    if asked.data is not None and asked.batch is not None:
        raise NormlabError("--data or --batch", "both", "leave one out")
    if asked.examples < 2:
        raise NormlabError("--examples of at least 2", asked.examples)
    options = parse_options(asked.model_options)
    dataset = _data(asked.data or "digits", asked, say) if asked.batch is None else _random(asked.batch, asked)
    fields = {"model": model, "model_options": options, "data": dataset.name, "batch_size": len(dataset.train)}
    try:
        recipe = Recipe(**fields, seed=asked.seed, device=asked.device, lanes=False)  # type: ignore[arg-type]
    except ValidationError as error:
        raise cyclopts.ValidationError from error
    recipe = resolve(recipe)
    dataset, network = prepare(recipe, say, lambda *_: dataset)
    x, y = next(dataset.train.batches(recipe.batch_size))  # type: ignore[misc, arg-type]
    network.train(asked.mode == "train")
    torch.default_generator.manual_seed(asked.seed)
    return Subject(network, to_device(x, recipe), y.to(torch.device(recipe.device)))


def _data(name: str, asked: Asked, say: Say) -> "Dataset":
    """A fixed random part of the training examples; of a loader its first batch, or what is asked of that."""
    from normlab import data

    found = data.load(name, say=say)
    split = found.train
    if isinstance(split, data.Loaded):
        split = data.Examples(*next(split.batches(seed=asked.seed)))
    return dataclasses.replace(found, train=split.sample(asked.examples), validation=None, test=None)


def _random(shape: str, asked: Asked) -> "Dataset":
    import torch

    from normlab.data import Dataset, Examples
    from normlab.models import generator

    sizes = parse_shape(shape, "--batch")
    if len(sizes) < 2:
        raise NormlabError("--batch as the shape N,... of a batch", repr(shape), "as 32,3,224,224")
    if asked.classes < 1:
        raise NormlabError("--classes of at least 1", asked.classes)
    draw = generator(asked.seed, "batch")
    x = torch.randn(sizes, generator=draw)
    y = torch.randint(asked.classes, sizes[:1], generator=draw)
    return Dataset("random numbers", Examples(x, y), None, None, asked.classes)

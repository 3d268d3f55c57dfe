"""From a recipe to a data set and a network that fit each other, found out before the first step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normlab import data, models, surgery
from normlab.data import Dataset, Loaded
from normlab.errors import NormlabError, one_line
from normlab.store import Recipe
from normlab.train.device import place


def prepare(recipe: Recipe, say: Callable[[str], None]) -> tuple[Dataset, nn.Module]:
    """The data, divided, and the network, after its surgeries, on the recipe's device and in its dtype.

    Raises NormlabError where either is wrong, or they do not fit.
    """
    # Names first: a wrong one should not wait for a download.
    models.find(recipe.model)
    surgeries = [surgery.from_plain(plain) for plain in recipe.surgeries]
    dataset = data.hold_out(data.load(recipe.data, say=say), recipe.validation, recipe.train_examples)
    model = models.build(
        recipe.model,
        recipe.model_options,
        input_shape=dataset.shape,
        classes=dataset.classes,
        seed=recipe.seed,
    )
    for operate in surgeries:
        operate(model)
    place(model, recipe)
    _rehearse(model, dataset, recipe)
    return dataset, model


def forward(model: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    """Logits; whatever the network raises comes with the shape of the batch it was given."""
    try:
        return model(x)
    except Exception as error:
        advice = "--debug shows where"
        if "more than 1 value per channel" in str(error):
            advice = "choose --batch-size or --train-examples so that no batch, not even the last, has one example"
        raise NormlabError(
            f"model {recipe.model} to take a batch of shape {tuple(x.shape)}", one_line(error), advice
        ) from error


def to_device(x: Tensor, recipe: Recipe) -> Tensor:
    """Inputs as the model takes them."""
    return x.to(torch.device(recipe.device), getattr(torch, recipe.dtype))


def _rehearse(model: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
    """A forward pass of the smallest batch in train mode; buffers go back.

    Lazy layers get their shapes in one of evaluation mode before, which moves no buffer.
    """
    x = to_device(_smallest_batch(dataset, recipe), recipe)
    with torch.no_grad():
        if any(is_lazy(value) for value in (*model.parameters(), *model.buffers())):
            torch.default_generator.manual_seed(models.key(recipe.seed, "lazy"))
            with surgery.evaluating(model):
                forward(model, x, recipe)
        before = [(buffer, buffer.clone()) for buffer in model.buffers()]
        logits = forward(model, x, recipe)
        for buffer, value in before:
            buffer.copy_(value)
    is_tensor = isinstance(logits, Tensor)
    if not is_tensor or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < dataset.classes:
        raise NormlabError(
            f"model {recipe.model} to give logits of shape (N, classes) = ({len(x)}, {dataset.classes})",
            tuple(logits.shape) if is_tensor else f"a {type(logits).__name__}",
            f"{dataset.name} has {dataset.classes} classes",
        )


def _smallest_batch(dataset: Dataset, recipe: Recipe) -> Tensor:
    split = dataset.train
    if isinstance(split, Loaded):
        return next(iter(split.batches()))[0]
    size = min(recipe.batch_size, len(split))
    return next(iter(split.batches(len(split) % size or size)))[0]

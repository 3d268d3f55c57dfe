"""From a recipe to a data set and a network that fit each other, found out before the first step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normlab import data, models, surgery
from normlab.data import Dataset, Loaded
from normlab.errors import NormlabError, one_line
from normlab.norms.channels import accumulator
from normlab.store import Recipe
from normlab.surgery.find import is_shapeless
from normlab.train import state
from normlab.train.device import place
from normlab.train.parallel import alone, divided

Say = Callable[[str], None]


def dataset_of(recipe: Recipe, say: Say) -> Dataset:
    """The recipe's data, divided as it says. Raises NormlabError where it cannot be had or divided."""
    return data.hold_out(data.load(recipe.data, say=say), recipe.validation, recipe.train_examples)


def prepare(
    recipe: Recipe, say: Say, dataset_of: Callable[[Recipe, Say], Dataset] = dataset_of
) -> tuple[Dataset, nn.Module]:
    """The data, divided, and the network, after its surgeries, on the recipe's device and in its dtype.

    Raises NormlabError where either is wrong, or they do not fit.
    """
    # Names first: a wrong one should not wait for a download.
    models.find(recipe.model)
    surgeries = [surgery.from_plain(plain) for plain in recipe.surgeries]
    dataset = dataset_of(recipe, say)
    if recipe.schedule != "constant" and isinstance(dataset.train, Loaded) and dataset.train.batch_count is None:
        raise NormlabError(
            f"train of {dataset.name} of a known length for the schedule {recipe.schedule}",
            "a loader without one",
            "give its data set a __len__, or take the schedule constant",
        )
    model = models.build(
        recipe.model,
        recipe.model_options,
        input_shape=dataset.shape,
        classes=dataset.classes,
        seed=recipe.seed,
    )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NormlabError(f"model {recipe.model} to have parameters to train", "none")
    place(model, recipe)
    x = to_device(_smallest_batch(dataset, recipe), recipe)
    _give_shapes(model, x, recipe)
    for operate in surgeries:
        if not operate(model):
            raise NormlabError(
                f"something in model {recipe.model} for {operate} to change", "nothing", "leave it out"
            )
    if len(recipe.shares) > 1 and recipe.sync:
        for path, why in surgery.synchronize()(model).left.items():
            say(f"{path} is not synchronized: {why}")
    place(model, recipe)  # what a surgery has put there too
    if recipe.lanes:
        surgery.to_lanes(model)
    with alone(model):
        _rehearse(model, x, dataset, recipe)
    return dataset, model


def logits_of(model: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    """Logits of a batch, in float32 or better, for the loss."""
    logits = _forward(model, x, recipe)
    return logits.to(accumulator(logits))


def _forward(model: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    """What the network gives; whatever it raises comes with the shape of the batch it was given."""
    try:
        return model(x)
    except Exception as error:
        advice = "--debug shows where"
        if "more than 1 value per channel" in str(error):
            advice = "choose --batch-size or --train-examples so that no batch, not even the last, has one example"
        elif x.dim() == 3 and "channels" in str(error):
            advice = "give images of one channel its axis, as x[:, None]"
        raise NormlabError(
            f"model {recipe.model} to take a batch of shape {tuple(x.shape)}", one_line(error), advice
        ) from error


def to_device(x: Tensor, recipe: Recipe) -> Tensor:
    """Inputs as the model takes them."""
    return x.to(torch.device(recipe.device), getattr(torch, recipe.dtype))


def _give_shapes(model: nn.Module, x: Tensor, recipe: Recipe) -> None:
    """Lazy layers get their shapes, and their weights by the seed, in a pass of evaluation mode: no buffer moves."""
    if is_shapeless(model):
        models.seed_everything_else(torch.device(recipe.device), recipe.seed, "lazy")
        with torch.no_grad(), surgery.evaluating(model):
            _forward(model, x, recipe)


def _rehearse(model: nn.Module, x: Tensor, dataset: Dataset, recipe: Recipe) -> None:
    """A forward pass in evaluation mode and one in train mode; what the model remembers of them goes back."""
    models.seed_everything_else(torch.device(recipe.device), recipe.seed, "rehearsal")
    before = {
        name: value.detach().clone()
        for name, value in state.tensors(model).items()
        if not isinstance(value, nn.Parameter)
    }
    with torch.no_grad(), surgery.evaluating(model):
        _forward(model, x, recipe)
    logits = _forward(model, x, recipe)
    state.put_back(model, before)
    is_tensor = isinstance(logits, Tensor)
    if not is_tensor or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < dataset.classes:
        raise NormlabError(
            f"model {recipe.model} to give logits of shape (N, classes) = ({len(x)}, {dataset.classes})",
            tuple(logits.shape) if is_tensor else f"a {type(logits).__name__}",
            f"{dataset.name} has {dataset.classes} classes{_counted_from(dataset)}",
        )
    if not logits.requires_grad:
        raise NormlabError(
            f"model {recipe.model} to give logits with a gradient", "none", "leave out its detach() or no_grad()"
        )


def _counted_from(dataset: Dataset) -> str:
    """What is odd about the number of classes: labels that do not begin at 0."""
    lowest = 0 if isinstance(dataset.train, Loaded) else int(dataset.train.y.min())
    return f", as its labels begin at {lowest}: number them from 0" if lowest else ""


def _smallest_batch(dataset: Dataset, recipe: Recipe) -> Tensor:
    """Of what normalizes together: of whole batches, or of the parts of processes that keep to their own."""
    split = dataset.train
    if isinstance(split, Loaded):
        x = next(split.batches(seed=models.key(recipe.seed, "rehearsal")))[0][: split.smallest]
    else:
        size = min(recipe.batch_size, len(split))
        x = next(split.batches(len(split) % size or size))[0]
    if recipe.sync:
        return x
    parts = (len(x[part]) for part in divided(len(x), recipe.shares))
    return x[: min(count for count in parts if count)]

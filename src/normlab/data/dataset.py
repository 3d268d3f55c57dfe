"""A data set: its splits, and the fixed ways to hold a part of it out."""

from dataclasses import dataclass, replace

from normlab.data.split import Examples, Loaded
from normlab.errors import NormlabError


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of a data set; `classes` counts those of the whole of it, which a subset may lack.

    Raises NormlabError where an example of another split has another shape than one of `train`.
    """

    name: str
    train: Examples | Loaded
    validation: Examples | Loaded | None
    test: Examples | Loaded | None
    classes: int

    def __post_init__(self) -> None:
        for split in ("validation", "test"):
            other = getattr(self, split)
            if other is not None and other.shape != self.shape:
                raise NormlabError(
                    f"{split} examples of {self.name} with the shape {self.shape} of train", other.shape
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.train.shape


def hold_out(dataset: Dataset, validation: int, train_examples: int | None = None) -> Dataset:
    """A data set whose last `validation` training examples validate, and `train_examples` of the rest train.

    The subset is random but the same on every call, a smaller one is part of a larger one, and its
    examples keep their order; None takes all. Raises NormlabError where there are not enough examples,
    on a validation split that is already there, and for a DataLoader, which cannot be divided.
    """
    if not validation and train_examples is None:
        return dataset
    if isinstance(dataset.train, Loaded):
        raise NormlabError(
            f"tensors or arrays as train of {dataset.name}, to hold examples out or to train on fewer",
            "a DataLoader",
            "divide the data before loading it",
        )
    if validation and dataset.validation is not None:
        raise NormlabError(
            f"validation 0, as {dataset.name} has a validation split", validation, "drop one or the other"
        )
    left = len(dataset.train) - validation
    if not 1 <= left <= len(dataset.train):
        raise NormlabError(f"validation from 0 to {len(dataset.train) - 1}, as one example must train", validation)
    train = dataset.train.subset(slice(left))
    held = dataset.train.subset(slice(left, None)) if validation else dataset.validation
    if train_examples is not None:
        if not 1 <= train_examples <= left:
            raise NormlabError(f"train_examples from 1 to {left}, the training examples", train_examples)
        train = train.sample(train_examples)
    return replace(dataset, train=train, validation=held)

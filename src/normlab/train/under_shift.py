"""under_shift: a probe of how a network fares on corrupted images, by stored statistics and by those at hand.

Schneider et al. 2020, arXiv 2006.16971, and Nado et al. 2020, arXiv 2006.10963: statistics of the corrupted batch in
the place of the training data's. It stands in this room since it asks with data: those that the recipe tests on.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from normlab.data import Loaded
from normlab.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from normlab.errors import NormlabError, choose
from normlab.measure import Look
from normlab.measure.asking import asking
from normlab.measure.reading import Reading, at_least
from normlab.models import generator, key
from normlab.store import Recipe
from normlab.surgery import adapt
from normlab.train.prepare import dataset_of, to_device

CLEAN = "clean"
STORED = "stored"
FEWEST = 2
"""Examples of a batch: of one alone a norm behind a linear layer has no statistics."""

Batches = Callable[[Tensor], Sequence[Tensor]]
"""Classes (N,) to the indices of each batch."""


def _whole(y: Tensor) -> Sequence[Tensor]:
    return [torch.arange(len(y))]


def _of(size: int) -> Batches:
    """Batches of so many; what is left of the examples is left out."""
    return lambda y: torch.arange(len(y) - len(y) % size).split(size) if len(y) >= size else ()


def _one_class(y: Tensor) -> Sequence[Tensor]:
    """A batch for each class that has enough examples."""
    found = [(y == label).nonzero().flatten() for label in y.unique()]
    return [batch for batch in found if len(batch) >= FEWEST]


WAYS: dict[str, tuple[float | None, Batches]] = {
    STORED: (None, _whole),
    "batch": (0, _whole),
    "one class a batch": (0, _one_class),
    "batches of 8": (0, _of(8)),
    "batches of 2": (0, _of(2)),
    "batches of 8, mixed": (16, _of(8)),
}
"""How images come, and for how many examples the stored statistics count beside theirs; None: for all."""


@dataclasses.dataclass(frozen=True)
class under_shift(Reading):
    """`{corruption}: {way}`: accuracy (a share) on held-out images, "clean" ones among them, in each of `WAYS`.

    The images are of the test split, or else of the one that validates: a random part, by the recipe's seed, of a
    loader the first batch. An accuracy is over those that the way puts in a batch. NaN before the first step, when
    nothing is learned yet; what cannot be asked is refused then.

    Raises NormlabError on an unknown corruption or severity; and, read, where no data were held out, where they are
    no images in [0, 1], and where no batch norm keeps running statistics.
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    severity: int = SEVERITIES[-1]
    examples: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "corruptions", tuple(self.corruptions))  # from JSON it comes as a list
        for corruption in self.corruptions:
            choose(CORRUPTIONS, corruption, "corruption")
        if self.severity not in SEVERITIES:
            raise NormlabError("a severity from 1 to 5", repr(self.severity))
        at_least(FEWEST, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        recipe = look.recipe
        clean, y = _held_out(recipe, self.examples)
        kinds = {CLEAN: clean} | {
            name: corrupt(clean, name, self.severity, seed=recipe.seed) for name in self.corruptions
        }
        x = {name: to_device(images, recipe) for name, images in kinds.items()}
        found = {}
        for way, (source_count, batches) in WAYS.items():
            with torch.no_grad(), asking(look.model) as model:
                if source_count is not None and not adapt(source_count)(model):
                    raise NormlabError(
                        "a batch norm with running statistics, which those at hand can replace",
                        f"none in model {recipe.model}",
                    )
                model.eval()
                for name, images in x.items():
                    asked = batches(y) if look.step else ()
                    right = [(model(images[batch]).argmax(1).cpu() == y[batch]).float() for batch in asked]
                    found[f"{name}: {way}"] = torch.cat(right).mean().item() if right else math.nan
        return found


def _held_out(recipe: Recipe, examples: int) -> tuple[Tensor, Tensor]:
    """Images and their classes, on the CPU."""
    dataset = dataset_of(recipe, lambda _: None)
    split = dataset.validation if dataset.test is None else dataset.test
    if split is None:
        raise NormlabError(f"a test or a validation split of {dataset.name}, to corrupt", "neither")
    if isinstance(split, Loaded):
        x, y = next(split.batches(seed=key(recipe.seed, "shift")))
        return x[:examples], y[:examples]
    order = torch.randperm(len(split), generator=generator(recipe.seed, "shift"))[:examples]
    return next(split.batches(examples, order))

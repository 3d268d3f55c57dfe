"""What a recipe's probes read while it trains; they leave no trace in the run."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from normlab import measure
from normlab.data import Dataset, Loaded
from normlab.errors import NormlabError, one_line
from normlab.models import borrowed, key
from normlab.store import Recipe, Series
from normlab.train import state
from normlab.train.evaluate import finite
from normlab.train.parallel import alone
from normlab.train.prepare import to_device
from normlab.train.progress import Progress

BATCH = 2_000
"""Training examples that the network is asked with; a probe that needs fewer takes the first."""


class Probing:
    """The probes of a recipe, and the batch that they all see at every reading."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self._recipe = recipe
        self._probes = {str(plain["name"]): measure.from_plain(plain) for plain in recipe.probes}
        if len(self._probes) < len(recipe.probes):
            raise NormlabError("each probe once", ", ".join(str(plain["name"]) for plain in recipe.probes))
        if self._probes:
            split = dataset.train
            if isinstance(split, Loaded):
                x, y = next(split.batches(seed=key(recipe.seed, "probe")))
            else:
                x, y = next(split.sample(BATCH).batches(BATCH))
            self._x, self._y = to_device(x, recipe), y.to(torch.device(recipe.device))

    def look(self, model: nn.Module, progress: Progress, *, ended: bool = False) -> bool:
        """Let every probe read whose turn it is after so many steps, once; whether any did.

        A run that has `ended` before a probe's second turn is read where it ended.
        """
        looked = False
        for name, probe in self._probes.items():
            readings = progress.readings.setdefault(name, [])
            due = progress.steps == 0 or (probe.every and progress.steps % probe.every == 0)
            if ended:
                due = progress.steps < probe.every
            if due and (not readings or readings[-1][0] < progress.steps):
                read = self._read(name, probe, model, progress.steps)
                readings.append((progress.steps, read))
                looked = True
        return looked

    def series(self, progress: Progress) -> dict[str, Series]:
        """All readings by probe."""
        return {
            name: Series(
                steps=tuple(step for step, _ in readings),
                values={value: tuple(read.get(value) for _, read in readings) for value in readings[0][1]},
            )
            for name, readings in progress.readings.items()
        }

    def _read(self, name: str, probe: measure.Probe, model: nn.Module, step: int) -> dict[str, float | None]:
        before = {path: value.detach().clone() for path, value in state.tensors(model).items()}
        gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        modes = {module: module.training for module in model.modules()}
        look = measure.Look(model, self._x, self._y, cross_entropy, self._recipe, step)
        try:
            with borrowed(self._x.device), alone(model):
                read = probe(look)
        except NormlabError:
            raise
        except Exception as error:
            raise NormlabError(f"probe {name} to read model {self._recipe.model}", one_line(error)) from error
        finally:
            state.put_back(model, before)
            for module, training in modes.items():
                module.training = training
            for parameter, gradient in gradients:
                parameter.grad = gradient
        return {value: finite(number) for value, number in read.items()}

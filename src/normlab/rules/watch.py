"""Watcher: a check every so many steps of a training loop, which tells each finding once."""

import logging
from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import Optimizer

from normlab.measure.passes import Batch
from normlab.measure.reading import check_every
from normlab.rules.check import check
from normlab.rules.diagnosis import Finding

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO}


def log(finding: Finding) -> None:
    """To the logger `normlab`, at the level of its severity; a note is INFO."""
    logging.getLogger("normlab").log(_LEVELS[finding.rule.severity], "%s", finding)


class Watcher:
    """Checks a model while it trains, and changes nothing in it.

        watcher = Watcher(model, optimizer)
        for x, y in loader:
            ...
            optimizer.step()
            watcher.step()

    Args:
        model: as `check` takes it.
        optimizer: that of the training, if its settings are to be looked at.
        every: calls of `step` between two checks, the first of which is made at once; 0 makes no other.
        select: as of `check`.
        ignore: as of `check`.
        report: called with each finding that is new; logs it by default.

    Raises NormlabError on an `every` that is no number of steps.

    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        every: int = 100,
        select: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        report: Callable[[Finding], object] = log,
    ) -> None:
        check_every(every)
        self.model = model
        self.optimizer = optimizer
        self.every = every
        self.select = None if select is None else tuple(select)
        self.ignore = tuple(ignore)
        self.report = report
        self._steps = 0
        self._told: set[tuple[str, str]] = set()

    def step(self, batch: Batch | None = None) -> list[Finding]:
        """Count a step and, if it is time, check: what is found for the first time, which is reported too.

        Without a batch the rules are asked that look at the model as it stands, its running statistics and its
        optimizer: nothing is run. With one the others are too, at the cost of two forward passes.
        """
        due = self._steps % self.every == 0 if self.every else self._steps == 0
        self._steps += 1
        if not due:
            return []
        diagnosis = check(self.model, batch, optimizer=self.optimizer, select=self.select, ignore=self.ignore)
        new = [each for each in diagnosis.findings if (each.rule.id, each.path) not in self._told]
        self._told |= {(each.rule.id, each.path) for each in new}
        for finding in new:
            self.report(finding)
        return new

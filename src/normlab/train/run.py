"""train(recipe) -> Record: the loop."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from normlab import models
from normlab.data import Dataset, Examples, Loaded
from normlab.errors import NormlabError
from normlab.kernels import Lanes, native
from normlab.store import Epoch, Recipe, Record, Result, Timing, trial_id
from normlab.store.record import NonFinite
from normlab.store.trial import machine, versions
from normlab.train import checkpoint
from normlab.train.device import resolve, threads
from normlab.train.evaluate import BATCH, evaluate, evaluate_precisely, finite
from normlab.train.observer import Interrupted, Observer, Stopped
from normlab.train.optimizer import learning_rate, make_optimizer, update_of
from normlab.train.parallel import Team, told_of_others
from normlab.train.prepare import Say, dataset_of, prepare, to_device
from normlab.train.probing import Probing
from normlab.train.progress import WARMUP_STEPS, Progress, Sums
from normlab.train.shared_step import SharedStep
from normlab.train.step import Step


def train(
    recipe: Recipe,
    *,
    checkpoints: Path | None = None,
    resume: bool = False,
    interrupted_to: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    observer: Observer | None = None,
    say: Say = lambda _: None,
    dataset_of: Callable[[Recipe, Say], Dataset] = dataset_of,
) -> Record:
    """Train as the recipe says. The same recipe on the same machine gives the same `result`, bit for bit.

    Where torch.distributed is initialized its processes share every batch; all of them call this, with the same
    recipe, and get the same record. Only the first evaluates, and writes checkpoints.

    Args:
        recipe: what to train, on what, how.
        checkpoints: a folder for a checkpoint after every epoch.
        resume: go on from the newest checkpoint of `checkpoints` (else of `interrupted_to`), if there is
            one, bitwise as if never stopped.
        interrupted_to: takes the checkpoint of a stopped run where `checkpoints` is not given: its trial's
            folder in it.
        stop: asked at every step and batch of evaluation; once it says True the run leaves a checkpoint.
        observer: is told of steps and epochs.
        say: is told, in a line, what a person should know.
        dataset_of: gives the recipe's data, divided; who trains many times may keep it in memory.

    Raises:
        NormlabError: something that the user named is wrong, missing or does not fit.
        Interrupted: `stop` said so.

    """
    if resume and not (checkpoints or interrupted_to):
        raise NormlabError("a folder of checkpoints to resume from", "none", "give checkpoints=")
    recipe = resolve(recipe)
    if checkpoints:
        checkpoint.check_folder(checkpoints)
    with threads(recipe.threads or 1), models.borrowed(torch.device(recipe.device)), told_of_others():
        run = _Run(recipe, stop, observer or Observer(), say, dataset_of)
        folder = checkpoints or (interrupted_to and interrupted_to / run.trial)
        if resume and folder:
            run.resume(folder)
        try:
            return run.finish(checkpoints)
        except Stopped:
            if folder is None:
                raise KeyboardInterrupt from None
            raise Interrupted(run.save(folder)) from None
        finally:
            run.observer.end()


class _Run:
    """A run in flight: what was prepared, and where it stands."""

    def __init__(
        self,
        recipe: Recipe,
        stop: Callable[[], bool],
        observer: Observer,
        say: Say,
        dataset_of: Callable[[Recipe, Say], Dataset],
    ) -> None:
        self.started = time.perf_counter()
        self.recipe = recipe
        self.team = Team(recipe, stop)
        with self.team.first_alone():
            self.dataset, self.model = prepare(recipe, say, dataset_of)
        self.trial = trial_id(recipe)  # finds the user's modules only once they are imported
        self.optimizer = make_optimizer(self.model, recipe)
        self.probing = Probing(recipe, self.dataset)
        self.stop = stop
        self.observer = observer
        self.say = say
        self.progress = Progress()
        self.steps_here = 0

    def finish(self, checkpoints: Path | None) -> Record:
        """All epochs that are left, then the evaluation under recomputed statistics."""
        progress = self.progress
        self.team.begin(self.model, f"after step {progress.steps} of trial {self.trial}")
        self.observer.begin(self.recipe, self._steps_per_epoch(), len(progress.epochs))
        device = torch.device(self.recipe.device)
        with models.DropoutStreams(self.model, self.recipe.seed, device, self.team.rank) as streams:
            while len(progress.epochs) < self.recipe.epochs and not progress.nonfinite:
                self._steps(streams)
                progress.epochs.append(self.team.by_first(Epoch, self._epoch))
                progress.sums = Sums()
                self.observer.epoch(progress.epochs[-1], progress.examples_per_s)
                if checkpoints:
                    self.save(checkpoints)
            if self.team.leads and not progress.nonfinite:
                self.probing.look(self.model, progress, ended=True)
        return self.team.by_first(Record, self._record)

    def save(self, folder: Path) -> Path:
        """Leave a checkpoint of this very state; where it is, or, of the first process's, its folder."""
        now = time.perf_counter()
        self.progress.seconds += now - self.started
        self.started = now
        path = folder
        if self.team.leads:
            path = checkpoint.save(folder, self.trial, self.recipe, self.progress, self.model, self.optimizer)
        self.team.meet()
        return path

    def resume(self, folder: Path) -> None:
        """Go on from the newest checkpoint of the folder; from the start, and saying so, where there is none."""
        progress = checkpoint.restore(folder, self.trial, self.recipe, self.model, self.optimizer)
        if progress is None:
            self.say(f"no checkpoint in {folder} yet: starting at the beginning")
            return
        self.progress = progress
        steps = f" and {progress.sums.steps} steps" if progress.sums.steps else ""
        self.say(f"resumed after {len(progress.epochs)} of {self.recipe.epochs} epochs{steps}")

    def _steps(self, streams: models.DropoutStreams) -> None:
        """The steps that are left of the epoch, or those up to a loss that is no number."""
        recipe, progress, sums = self.recipe, self.progress, self.progress.sums
        epoch = len(progress.epochs)
        steps_per_epoch = self._steps_per_epoch() or 1
        step = self._step()
        batches = self._training_batches(streams, epoch, sums.steps, step.takes_lanes)
        update = update_of(self.optimizer)
        clock = time.perf_counter()
        while True:
            if self.team.stops():
                raise Stopped
            # Before the batch is drawn: a loader's transforms may be random too.
            streams.at(epoch, sums.steps)
            if self.team.leads and self.probing.look(self.model, progress):
                streams.at(epoch, sums.steps)  # again: what the probes drew is no use of the run's
                step = self._step()
            if (batch := next(batches, None)) is None:
                return
            x, y = batch
            streams.part_ways()
            outcome = step(x, y)
            if not math.isfinite(outcome.loss):
                progress.nonfinite = NonFinite(epoch=epoch + 1, step=sums.steps + 1)
                return
            rate = learning_rate(recipe, epoch * steps_per_epoch + sums.steps, recipe.epochs * steps_per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            sums.gradient_norm += outcome.gradient_norm
            update()
            sums.steps += 1
            progress.steps += 1
            sums.examples += len(y)
            sums.loss += outcome.loss * len(y)
            sums.correct += outcome.correct
            self.steps_here += 1
            before, clock = clock, time.perf_counter()
            progress.count(clock - before, len(y), warm=self.steps_here > WARMUP_STEPS)
            self.observer.step(sums)

    def _step(self) -> Step | SharedStep:
        several = self.team.several
        return SharedStep(self.model, self.recipe, self.team) if several else Step(self.model, self.recipe)

    def _epoch(self) -> Epoch:
        sums = self.progress.sums
        broken = self.progress.nonfinite is not None
        evaluated = () if broken or not self.recipe.evaluate_epochs else self.recipe.evaluate
        validation, test = (
            evaluate(self.model, self.recipe, split, self._feed) if name in evaluated else None
            for name, split in (("validation", self.dataset.validation), ("test", self.dataset.test))
        )
        return Epoch(
            epoch=len(self.progress.epochs) + 1,
            train_loss=None if broken else sums.loss / sums.examples,
            train_accuracy=sums.correct / max(sums.examples, 1),
            validation_accuracy=validation and validation[1],
            test_accuracy=test and test[1],
            gradient_norm=None if broken else finite(sums.gradient_norm / sums.steps),
        )

    def _training_batches(
        self, streams: models.DropoutStreams, epoch: int, start: int, in_lanes: bool
    ) -> Iterator[tuple[Tensor | Lanes, Tensor]]:
        """Shuffled by (seed, epoch) alone; a user's loader draws from the streams of the epoch and its steps."""
        split, seed = self.dataset.train, self.recipe.seed
        if isinstance(split, Loaded):
            batches = split.batches(seed=models.key(seed, "shuffle", epoch))
            for step in range(start):  # once more, as they were drawn: the order may hang on any of these streams
                streams.at(epoch, step)
                next(batches, None)
        else:
            order = torch.randperm(len(split), generator=models.generator(seed, "shuffle", epoch))
            if in_lanes and native(split.x):
                return split.in_lanes(self.recipe.batch_size, order, start=start)
            batches = split.batches(self.recipe.batch_size, order, start=start)
        return map(self._placed, batches)

    def _feed(
        self, split: Examples | Loaded, size: int = BATCH, /, *, in_lanes: bool = False
    ) -> Iterator[tuple[Tensor | Lanes, Tensor]]:
        """A split for evaluation, in order; a loader that shuffles, or a model that draws, draws the same always."""
        seed = self.recipe.seed
        models.seed_everything_else(torch.device(self.recipe.device), seed, "evaluation")
        batches: Iterator[tuple[Tensor | Lanes, Tensor]]
        if isinstance(split, Loaded):
            batches = map(self._placed, split.batches(seed=models.key(seed, "order")))
        elif in_lanes and native(split.x):
            batches = split.in_lanes(size)
        else:
            batches = map(self._placed, split.batches(size))
        for batch in batches:
            if self.stop():
                raise Stopped
            yield batch

    def _placed(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        return to_device(x, self.recipe), y.to(torch.device(self.recipe.device))

    def _steps_per_epoch(self) -> int | None:
        """None for a loader of unknown length."""
        split = self.dataset.train
        if isinstance(split, Loaded):
            return split.batch_count
        return math.ceil(len(split) / self.recipe.batch_size)

    def _record(self) -> Record:
        precise = None
        if not self.progress.nonfinite:
            self.observer.recalibrating()
            precise = evaluate_precisely(self.model, self.recipe, self.dataset, self._feed, self.progress.epochs[-1])
        seconds = self.progress.seconds + time.perf_counter() - self.started
        nonfinite = (buffer for name, buffer in self.model.named_buffers() if name.endswith("nonfinite_batches"))
        return Record(
            trial=self.trial,
            recipe=self.recipe,
            result=Result(
                epochs=tuple(self.progress.epochs),
                precise=precise,
                nonfinite=self.progress.nonfinite,
                nonfinite_batches=sum(map(int, nonfinite)),
                parameters=models.parameter_count(self.model),
                probes=self.probing.series(self.progress),
            ),
            timing=Timing(examples_per_s=self.progress.examples_per_s, seconds=seconds, device=self.recipe.device),
            versions=versions(),
            machine=machine(),
        )

"""Data parallel training: several processes, each of which takes its part of every batch.

All do the same, in the same order: draw the whole batch, compute on their part of it, add up (`shared_step`), step.
So all have the same weights, bit for bit, and need not send them. What is done once (evaluation, probes, checkpoints,
the record) the first process does, while the others wait.
"""

import contextlib
import datetime
import importlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.store import Recipe
from normlab.store.record import Plain
from normlab.surgery.find import SYNCHRONIZED
from normlab.train import state
from normlab.train.observer import Stopped

WAIT = datetime.timedelta(days=1)
"""For a process that evaluates. One that dies is noticed at once, by its connection."""

Made = TypeVar("Made", bound=Plain)


@contextlib.contextmanager
def joined() -> Iterator[bool]:
    """While entered, this process is one of those that torchrun started; whether it is the first of them."""
    if not dist.is_available() or not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield True
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
    # Imported later, as parts of torch do, its functions would hold the group as a default argument, for good. One
    # that outlives this ends with the interpreter, which kills those of its threads that still let go of a tensor,
    # and the process with them.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=WAIT)
    try:
        yield dist.get_rank() == 0
    finally:
        dist.destroy_process_group()


def processes() -> int:
    """How many share every batch: one where torch.distributed is not initialized."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def check_device(device: str) -> None:
    """Raises NormlabError where several processes cannot each have this device."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cuda" and here > torch.cuda.device_count():
        raise NormlabError(
            f"a GPU for each of {here} processes", torch.cuda.device_count(), "start fewer, or give --device cpu"
        )
    if device not in {"cpu", "cuda"}:
        raise NormlabError("a device of which each process has its own: auto, cpu or cuda", repr(device))


def divided(size: int, shares: Sequence[int]) -> list[slice]:
    """A batch of `size` examples in contiguous parts, near to these shares; the first has one example at least."""
    ends = [-(-size * share // sum(shares)) for share in itertools.accumulate(shares, initial=0)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


@contextlib.contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """While entered, the model's synchronized norms ask no other process, which may be doing something else."""
    norms = [(norm, norm.process_group) for norm in model.modules() if isinstance(norm, SYNCHRONIZED)]
    try:
        for norm, _ in norms:
            # The group of a process that is in none.
            norm.process_group = dist.GroupMember.NON_GROUP_MEMBER  # type: ignore[assignment]
        yield
    finally:
        for norm, group in norms:
            norm.process_group = group


@contextlib.contextmanager
def told_of_others() -> Iterator[None]:
    """A process that ends breaks whatever another asks it next: that becomes a sentence."""
    try:
        yield
    except Exception as error:
        if processes() > 1 and _lost(error):
            raise NormlabError(
                "all processes to stay to the end",
                "one that ended before",
                "its own message says why; with --checkpoints, --resume goes on from the last epoch",
            ) from error
        raise


def _lost(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, dist.DistError) and "gloo/transport" not in str(error):
        error = error.__cause__ or error.__context__
    return error is not None


class Team:
    """The processes of a training as one of them sees it. Where there is but one it waits for nobody."""

    def __init__(self, recipe: Recipe, stop: Callable[[], bool]) -> None:
        self.shares = recipe.shares
        self.several = len(recipe.shares) > 1
        self.rank = dist.get_rank() if self.several else 0
        self.leads = self.rank == 0
        self.stop = stop
        self.stopping = False
        """Whether any process was told to stop before the last step was done."""

    def stops(self) -> bool:
        """Whether to stop before the next step: the same answer in all processes."""
        return self.stopping if self.several else self.stop()

    def part(self, size: int) -> slice:
        """This process's part of a batch."""
        return divided(size, self.shares)[self.rank]

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes first: what it has fetched or compiled is there for the others."""
        if not self.leads:
            self.meet()
        try:
            yield
        finally:  # a mistake is one in all of them: the others go on, to find it
            if self.leads:
                self.meet()

    def meet(self) -> None:
        """Wait until all are here."""
        if self.several:
            dist.all_reduce(torch.zeros(()))

    def begin(self, model: nn.Module, standing: str) -> None:
        """Begin from the first process's tensors. Raises NormlabError where this one stands elsewhere."""
        if not self.several:
            return
        if (first := self._told(standing)) != standing:
            raise NormlabError(
                f"process {self.rank} to stand where the first does, {first}",
                standing,
                "give all of them the same command, source and checkpoints",
            )
        self.follow([*state.tensors(model).values()])

    def follow(self, tensors: Sequence[Tensor]) -> None:
        """Take over the first process's values, bit for bit."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).view(torch.uint8) for tensor in tensors])
        dist.broadcast(flat, 0)
        if self.leads:
            return
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
        with torch.no_grad():
            for tensor, values in zip(tensors, flat.split(sizes), strict=True):
                # A copy, since a view of another dtype must begin at a multiple of its size.
                tensor.copy_(values.clone().view(tensor.dtype).view_as(tensor))

    def by_first(self, kind: type[Made], work: Callable[[], Made]) -> Made:
        """What the first process makes while the others wait. Raises Stopped in all where it was stopped."""
        if not self.several:
            return work()
        if not self.leads:
            if text := self._told():
                return kind.model_validate_json(text)
            raise Stopped
        try:
            made = work()
        except Stopped:
            self._told()
            raise
        self._told(made.model_dump_json())
        return made

    def _told(self, text: str = "") -> str:
        """The first process's text."""
        size = torch.tensor(len(text.encode()))
        dist.broadcast(size, 0)
        letters = torch.tensor([*text.encode()] if self.leads else [0] * int(size), dtype=torch.uint8)
        if size:
            dist.broadcast(letters, 0)
        return bytes(letters.tolist()).decode()

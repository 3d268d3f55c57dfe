"""What the layers share that keep running averages of a batch's statistics, whatever these are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, check_spread
from normlab.norms.channels import affine
from normlab.norms.running import check_settings
from normlab.norms.shapes import Shaped
from normlab.norms.standardize import is_finite, transformed


def average(
    running: Sequence[Tensor], batch: Sequence[Tensor], momentum: float | Tensor
) -> tuple[list[Tensor], bool | Tensor]:
    """The next running statistics, without autograd history, and whether the batch's were all numbers.

    Where they were not (an inf or NaN, or an overflow of the running ones' dtype), these are the old ones.
    """
    old = [value.detach() for value in running]
    stored = [value.detach().to(before.dtype) for value, before in zip(batch, old, strict=True)]
    finite = all_finite(stored)
    if finite is False:
        return old, finite
    new = [
        torch.lerp(before, value, momentum.to(before.dtype) if isinstance(momentum, Tensor) else momentum)
        for before, value in zip(old, stored, strict=True)
    ]
    if finite is not True:
        new = [torch.where(finite, after, before) for after, before in zip(new, old, strict=True)]
    return new, finite


def all_finite(statistics: Sequence[Tensor]) -> bool | Tensor:
    """Whether they are all numbers: a bool where that is known without waiting for a device, else of shape ()."""
    return is_finite(torch.cat([value.flatten() for value in statistics]))


class Tracked(Shaped, nn.Module, ABC):
    """A layer for (N, C, *spatial) with gamma, beta and running statistics, as torch.nn.BatchNorm has them.

    In evaluation the running statistics serve, or the batch's where there are none. A batch with an inf or NaN
    moves no buffer and is counted in `nonfinite_batches` (not in the state_dict). One value per channel in
    training raises torch's ValueError.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    num_batches_tracked: Tensor
    nonfinite_batches: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_settings(eps, momentum)
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, value in (("weight", torch.ones), ("bias", torch.zeros)):
            made = nn.Parameter(value(num_features, device=device, dtype=dtype)) if affine else None
            self.register_parameter(name, made)
        self._names = tuple(self._new_statistics())
        for name, start in self._new_statistics().items():
            self.register_buffer(name, start.to(device=device, dtype=dtype) if track_running_stats else None)
        none_yet = torch.zeros((), dtype=torch.int64, device=device)
        self.register_buffer("num_batches_tracked", none_yet if track_running_stats else None)
        self.register_buffer("nonfinite_batches", none_yet.clone(), persistent=False)

    @abstractmethod
    def _new_statistics(self) -> dict[str, Tensor]:
        """The running statistics of a new layer, by name."""

    @abstractmethod
    def _train(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Training's y, and the batch's statistics in the order of `_new_statistics`."""

    @abstractmethod
    def _evaluate(self, x: Tensor, *running: Tensor) -> Tensor:
        """Evaluation's y, by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes x (N, C, *spatial)."""
        self._check_input_dim(input)
        running = [getattr(self, name) for name in self._names] if self.track_running_stats else []
        if not self.training and self.track_running_stats:
            return self._evaluate(input, *running)
        check_spread(input)
        if not input.numel():  # nothing to normalize, nor to learn from
            return affine(input, self.weight, self.bias).to(input.dtype)
        y, batch = self._train(input)
        if self.training:
            self._track(running, batch)
        return y

    def _track(self, running: list[Tensor], batch: tuple[Tensor, ...]) -> None:
        if not self.track_running_stats:
            if not transformed():  # torch.func changes no state, and a layer that has none should serve it
                self._count(all_finite(batch))
            return
        momentum: float | Tensor | None = self.momentum
        if momentum is None:  # the cumulative mean
            momentum = 1 / (self.num_batches_tracked + 1)
        new, finite = average(running, batch, momentum)
        self._count(finite)
        self.num_batches_tracked.add_(finite)
        for before, after in zip(running, new, strict=True):
            before.copy_(after)

    def _count(self, finite: bool | Tensor) -> None:
        self.nonfinite_batches.add_(~finite if isinstance(finite, Tensor) else not finite)

    def reset_running_stats(self) -> None:
        """The statistics of a new layer, and no batch counted."""
        self.nonfinite_batches.zero_()
        if self.track_running_stats:
            self.num_batches_tracked.zero_()
            for name, start in self._new_statistics().items():
                getattr(self, name).copy_(start)

    def reset_parameters(self) -> None:
        """The statistics of a new layer; gamma 1 and beta 0."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        loaded = next((value for value in (self.num_batches_tracked, self.weight) if value is not None), None)
        if self.nonfinite_batches.is_meta and loaded is not None and not loaded.is_meta:
            # load_state_dict(..., assign=True) gives a layer on "meta" all but what no state_dict holds.
            self.nonfinite_batches = torch.zeros((), dtype=torch.int64, device=loaded.device)

    def extra_repr(self) -> str:
        """The settings, as torch.nn.BatchNorm shows them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class Of1d:
    """Takes (N, C) or (N, C, L)."""

    layouts: ClassVar = BatchNorm1d.layouts
    sibling: ClassVar = "the class that ends in 2d is for images"


class Of2d:
    """Takes (N, C, H, W)."""

    layouts: ClassVar = BatchNorm2d.layouts
    sibling: ClassVar = "the class that ends in 1d is for linear layers, that in 3d for volumes"


class Of3d:
    """Takes (N, C, D, H, W)."""

    layouts: ClassVar = BatchNorm3d.layouts
    sibling: ClassVar = "the class that ends in 2d is for images"

"""Frozen batch normalization: the running statistics serve in training too.

    y = weight * (x - running_mean) / sqrt(running_var + eps) + bias

Batch normalization as it is in evaluation, in every mode: each channel is scaled and shifted by numbers that
no batch changes, and no example depends on another. Whoever takes over a pretrained network, but has only a
few images a step, keeps its statistics in this way instead of spoiling them with those of tiny batches. It is
a layer of its own since `eval()` does not last: the next `model.train()` undoes it. Weight and bias may still
be trained.

Over: nothing of the batch; each channel by the mean and variance it was given.
Cost: forward 1 reading of x and 1 writing of y; backward 1 reading of the gradient and 1 writing, and with a trained
    weight 1 reading of x.
When: for finetuning with small batches on data like that of the pretraining. Not for training from scratch: without
    the batch's statistics nothing holds the activations in their place.
Source: He et al. 2017, arXiv 1703.06870, section 3.1 (what detection networks do with a pretrained backbone).
"""

from typing import Any, ClassVar

from torch import Tensor, fx

from normlab.errors import NormlabError
from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm
from normlab.norms.standardize import normalize_by


class _Frozen(_BatchNorm):
    """In every mode an affine map of each channel; no buffer ever moves. gamma and beta may still be trained.

    Raises NormlabError for track_running_stats=False, which leaves nothing to normalize with.
    """

    kind: ClassVar = "frozen"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.track_running_stats:
            raise NormlabError("running statistics in a frozen batch norm", "track_running_stats=False")

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalizes x (N, C, *spatial) by the running statistics; `mask` as in `functional.batch_norm`."""
        if isinstance(input, fx.Proxy):
            return super().forward(input, mask)
        self._check_input_dim(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        return normalize_by(input, self.running_mean, self.running_var, self.weight, self.bias, mask, self.eps)


class FrozenBatchNorm1d(_Frozen, BatchNorm1d):
    """Of (N, C) or (N, C, L); arguments and state_dict as of BatchNorm1d."""


class FrozenBatchNorm2d(_Frozen, BatchNorm2d):
    """Of (N, C, H, W); arguments and state_dict as of BatchNorm2d."""


class FrozenBatchNorm3d(_Frozen, BatchNorm3d):
    """Of (N, C, D, H, W); arguments and state_dict as of BatchNorm3d."""


FAMILY = {"frozen": {1: FrozenBatchNorm1d, 2: FrozenBatchNorm2d, 3: FrozenBatchNorm3d}}

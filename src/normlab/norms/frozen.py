"""Frozen batch normalization: running statistics in training too.

    y = weight * (x - running_mean) / sqrt(running_var + eps) + bias

What detection networks do with a pretrained backbone (He et al. 2017, arXiv 1703.06870, section 3.1), and
what is left of batch normalization without batch statistics. A layer of its own since `eval()` does not
last: the next `model.train()` undoes it.
"""

from typing import Any, ClassVar

from torch import Tensor

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

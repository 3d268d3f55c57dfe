"""Facts of running statistics: who keeps them, where, and whether training moves them. Nothing is run."""

import dataclasses
import re
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normlab.measure.norms import Norm

_NAME = re.compile(r"^(running|moving)_(mean|avg|average|var|std|cov)")
"""What batch norms, torch's and hand-written ones, call their statistics."""


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One running statistic of a module."""

    path: str
    """Of the module."""
    name: str
    kept: Literal["parameter", "buffer", "attribute"]
    value: Tensor


def statistics(model: nn.Module) -> list[Statistic]:
    """Those of every module, its own and not yet lazy ones, by what they are called."""
    found = []
    for path, module in model.named_modules():
        held: list[tuple[Literal["parameter", "buffer", "attribute"], dict]] = [
            ("parameter", module._parameters),
            ("buffer", module._buffers),
            ("attribute", vars(module)),
        ]
        found += [
            Statistic(path, name, kept, value)
            for kept, values in held
            for name, value in values.items()
            if _NAME.match(name) and isinstance(value, Tensor) and not is_lazy(value)
        ]
    return found


def averaging_norms(batch_norms: dict[str, Norm]) -> dict[str, Norm]:
    """Batch norms that in train mode normalize by the batch and move running statistics: not the frozen ones."""
    return {
        path: norm
        for path, norm in batch_norms.items()
        if getattr(norm.module, "track_running_stats", False)
        and hasattr(norm.module, "momentum")
        and getattr(norm.module, "running_mean", None) is not None
        and getattr(norm.module, "kind", None) != "frozen"
    }


def moving_norms(model: nn.Module, averaging_norms: dict[str, Norm]) -> dict[str, Norm]:
    """Those whose running statistics move when the model trains: not the ones in evaluation mode on their own."""
    return {path: norm for path, norm in averaging_norms.items() if norm.module.training or not model.training}

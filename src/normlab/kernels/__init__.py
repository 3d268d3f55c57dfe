"""Native code for what small networks spend their time on, its plain references, and the choice between them."""

import torch
from torch import Tensor

from normlab.kernels import serving
from normlab.kernels.chain import Chain, stage
from normlab.kernels.lanes import Lanes, native, pack, unpack
from normlab.kernels.loss import Outcome, cross_entropy
from normlab.kernels.program import Link, Tensors
from normlab.kernels.settings import Pool, Settings

__all__ = [
    "Chain",
    "Lanes",
    "Link",
    "Outcome",
    "Pool",
    "Settings",
    "Tensors",
    "cross_entropy",
    "missing",
    "native",
    "pack",
    "serves",
    "stage",
    "unpack",
]


def missing() -> str | None:
    """Why lanes serve nothing here, or None."""
    return str(serving.path()) if serving.path().name == "plain" else None


def serves(x: Tensor) -> bool:
    """Whether lanes take a tensor, by its dtype and device."""
    if serving.path().name == "reference":
        return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return native(x)

"""Facts of a model as it stands: nothing is run."""

from torch import nn

from normlab.measure.norms import Norm, norms_of
from normlab.surgery.flow import Link, links


def norms(model: nn.Module) -> dict[str, Norm]:
    """Path to norm, of every family."""
    return norms_of(model)


def batch_norms(norms: dict[str, Norm]) -> dict[str, Norm]:
    """Those over the batch."""
    return {path: norm for path, norm in norms.items() if norm.family == "batch"}


def flow(model: nn.Module) -> list[Link]:
    """Which module feeds which, as far as the data flow can be traced, in the order of execution."""
    return list(links(model))

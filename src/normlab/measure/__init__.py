"""What a network is asked while it trains. A probe is a small frozen dataclass that is called on a Look, and answers
with named numbers; it leaves everything as it was.
"""

from collections.abc import Callable
from typing import Any

from normlab.errors import NormlabError, make_named, to_named
from normlab.measure.affine import affine
from normlab.measure.bias_gradient import bias_gradient
from normlab.measure.curvature import curvature
from normlab.measure.equivalent_rates import equivalent_rates
from normlab.measure.fit import fit
from normlab.measure.optimizer_equation import optimizer_equation
from normlab.measure.percentiles import percentiles
from normlab.measure.probe import Look, Probe
from normlab.measure.reading import check_every
from normlab.measure.statistics_graph import statistics_graph
from normlab.measure.synchronized import synchronized
from normlab.measure.under_statistics import under_statistics
from normlab.measure.uniformity import uniformity
from normlab.measure.variance_ratio import variance_ratio

PROBES: dict[str, Callable[..., Probe]] = {
    each.__name__: each
    for each in (
        affine,
        bias_gradient,
        curvature,
        equivalent_rates,
        fit,
        optimizer_equation,
        percentiles,
        statistics_graph,
        synchronized,
        under_statistics,
        uniformity,
        variance_ratio,
    )
}

__all__ = [
    "PROBES",
    "Look",
    "Probe",
    "affine",
    "bias_gradient",
    "curvature",
    "equivalent_rates",
    "fit",
    "from_plain",
    "optimizer_equation",
    "percentiles",
    "statistics_graph",
    "synchronized",
    "to_plain",
    "under_statistics",
    "uniformity",
    "variance_ratio",
]


def from_plain(plain: dict[str, Any]) -> Probe:
    """The probe that a recipe keeps as {"name": ..., and its arguments}, the user's own as pkg.module:callable.

    Raises NormlabError if there is none, on arguments that it does not take, and where the user's callable gives
    what is no probe.
    """
    probe = make_named(PROBES, plain, "probe", own=True)
    if not callable(probe) or not hasattr(probe, "every"):
        raise NormlabError(f"{plain['name']} to give a probe: `every`, and a call", f"a {type(probe).__name__}")
    check_every(probe.every)
    return probe


def to_plain(probe: Probe) -> dict[str, Any]:
    """The probe as a recipe keeps it, from which `from_plain` makes it again."""
    return to_named(probe, PROBES)

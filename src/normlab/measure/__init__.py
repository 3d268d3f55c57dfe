"""What a network is asked. A measurement is a function of any model and a batch; a probe is a small frozen dataclass
that is called on a Look while a network trains, and answers with named numbers. Both leave everything as it was.
"""

from collections.abc import Callable
from typing import Any

from normlab.errors import NormlabError, make_named, to_named
from normlab.measure.activations import activation_statistics, activations
from normlab.measure.affine import affine
from normlab.measure.angular import angular, angular_updates, effective_rate, scale_invariant
from normlab.measure.bias_gradient import bias_gradient
from normlab.measure.curvature import curvature
from normlab.measure.drift import drift, input_drift, input_moments
from normlab.measure.fit import fit
from normlab.measure.gap import gap, statistics_gap
from normlab.measure.ics import gradient_shift, ics
from normlab.measure.landscape import along_gradient, landscape
from normlab.measure.optimizer_equation import optimizer_equation
from normlab.measure.percentiles import percentiles
from normlab.measure.probe import Look, Probe
from normlab.measure.reading import check_every
from normlab.measure.sharpness import sharpness
from normlab.measure.signal import paired, signal, signal_propagation
from normlab.measure.statistics_graph import statistics_graph
from normlab.measure.under_statistics import under_statistics
from normlab.measure.uniformity import uniformity
from normlab.measure.variance_ratio import variance_ratio

PROBES: dict[str, Callable[..., Probe]] = {
    each.__name__: each
    for each in (
        activations,
        affine,
        angular,
        bias_gradient,
        curvature,
        drift,
        fit,
        gap,
        ics,
        landscape,
        optimizer_equation,
        percentiles,
        signal,
        statistics_graph,
        under_statistics,
        uniformity,
        variance_ratio,
    )
}

__all__ = [
    "PROBES",
    "Look",
    "Probe",
    "activation_statistics",
    "activations",
    "affine",
    "along_gradient",
    "angular",
    "angular_updates",
    "bias_gradient",
    "curvature",
    "drift",
    "effective_rate",
    "fit",
    "from_plain",
    "gap",
    "gradient_shift",
    "ics",
    "input_drift",
    "input_moments",
    "landscape",
    "optimizer_equation",
    "paired",
    "percentiles",
    "scale_invariant",
    "sharpness",
    "signal",
    "signal_propagation",
    "statistics_gap",
    "statistics_graph",
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

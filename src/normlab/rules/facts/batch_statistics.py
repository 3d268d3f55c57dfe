"""Facts of norms that take the batch's statistics in training."""

from normlab.measure.merged import Moments, merged
from normlab.measure.norms import Norm
from normlab.measure.passes import Pass, Use
from normlab.norms import frozen
from normlab.surgery.find import BatchNorm

_FROZEN = tuple(frozen.FAMILY["frozen"].values())


def batch_uses(training: Pass, batch_norms: dict[str, Norm]) -> dict[str, list[Use]]:
    """Path to the calls of a norm that took the batch's statistics; none that a backward pass repeats."""
    return _calls(training, batch_norms, in_training=True)


def batch_inputs(batch_uses: dict[str, list[Use]]) -> dict[str, Moments]:
    """Path to the moments of what these norms were given, over all calls; of those that were finite alone."""
    return _moments(batch_uses)


def evaluation_inputs(evaluation: Pass, batch_norms: dict[str, Norm]) -> dict[str, Moments]:
    """Path to the moments of what these norms were given under evaluation, as `batch_inputs`."""
    return _moments(_calls(evaluation, batch_norms, in_training=False))


def _calls(by: Pass, batch_norms: dict[str, Norm], *, in_training: bool) -> dict[str, list[Use]]:
    calls: dict[str, list[Use]] = {}
    for use in by.uses:
        taken = use.path in batch_norms and isinstance(use.module, BatchNorm) and not isinstance(use.module, _FROZEN)
        if taken and use.training == in_training and not use.recomputed:
            calls.setdefault(use.path, []).append(use)
    return calls


def _moments(calls: dict[str, list[Use]]) -> dict[str, Moments]:
    moments = {}
    for path, uses in calls.items():
        inputs = [use.input for use in uses if use.input is not None]
        if inputs and all(each.finite and each.mean is not None for each in inputs):
            moments[path] = merged(inputs)
    return moments

"""Facts of a model at work: one pass under evaluation and one in training, each run once, the model untouched."""

from collections.abc import Sequence

from torch import nn

from normlab.measure.passes import Batch, Pass, run
from normlab.rules.facts import Unknown
from normlab.surgery.find import is_shapeless
from normlab.surgery.untouched import untouched


def given_batches(model: nn.Module, batches: Sequence[Batch]) -> Sequence[Batch]:
    """At least one, that would not give the model its shape."""
    if not batches:
        raise Unknown("needs a batch")
    if is_shapeless(model):
        raise Unknown("a lazy layer waits for its first batch: run one through")
    return batches


def evaluation(model: nn.Module, given_batches: Sequence[Batch]) -> Pass:
    """All batches under evaluation; a model that cannot take them ends the check."""
    with untouched(model):
        return run(model, given_batches, training=False)


def tried(model: nn.Module, given_batches: Sequence[Batch], train: bool) -> Pass:
    """All batches in train mode, with a backward pass for each if training is asked about; it may have failed."""
    with untouched(model):
        return run(model, given_batches, training=True, backward=train)


def training(tried: Pass) -> Pass:
    """The pass in train mode, where the model could be trained."""
    if tried.failure is not None:
        raise Unknown(f"the pass in train mode failed: {tried.failure}")
    return tried


def backward(training: Pass, train: bool) -> Pass:
    """The pass in train mode, with gradients."""
    if not train:
        raise Unknown("needs a backward pass (train)")
    return training

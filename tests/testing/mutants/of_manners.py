"""Layers that compute rightly and behave badly: dtypes, layouts, saving, copying, compiling, masks."""

import copy

import torch
from norm_references import Batch, column

from mutants.of_running import halved
from mutants.table import mutant, with_gradient


def is_half(x):
    return x.dtype in (torch.float16, torch.bfloat16)


def is_last(x):
    return x.dim() == 4 and x.stride(1) == 1


@mutant("dtypes-are-kept")
class AlwaysGivesFloat32(Batch):
    def forward(self, x, mask=None):
        return super().forward(x, mask).float()


@mutant("dtypes-are-kept")
class CentersNoHalves(Batch):
    def forward(self, x, mask=None):
        return super().forward(x, mask) + (1 if is_half(x) else 0)


@mutant("dtypes-are-kept")
class RefusesHalves(Batch):
    def forward(self, x, mask=None):
        if is_half(x):
            raise RuntimeError("not implemented for 'Half'")
        return super().forward(x, mask)


@mutant("dtypes-are-kept", gradient_only=True)
class HalvesTheGradientOfHalves(Batch):
    def forward(self, x, mask=None):
        return super().forward(with_gradient(x, halved) if is_half(x) else x, mask)


@mutant("memory-format-is-kept")
class LosesTheLayout(Batch):
    def forward(self, x, mask=None):
        return super().forward(x, mask).contiguous()


@mutant("memory-format-is-kept")
class ReadsMemoryInTheWrongOrder(Batch):
    def forward(self, x, mask=None):
        plain = torch.empty(x.shape).stride()
        return super().forward(x.as_strided(x.shape, plain) if is_last(x) else x, mask)


@mutant("memory-format-is-kept")
class RefusesChannelsLast(Batch):
    def forward(self, x, mask=None):
        return super().forward(x.view(x.shape[0], -1).view(x.shape), mask)


@mutant("memory-format-is-kept", gradient_only=True)
class HalvesTheGradientOfChannelsLast(Batch):
    def forward(self, x, mask=None):
        return super().forward(with_gradient(x, halved) if is_last(x) else x, mask)


@mutant("autocast-changes-no-statistic")
class NarrowsItsBuffersUnderAutocast(Batch):
    def track(self, x, mean, var):
        super().track(x, mean, var)
        if torch.is_autocast_enabled("cpu"):
            self.running_mean = self.running_mean.bfloat16()


@mutant("autocast-changes-no-statistic")
class GivesFloat16UnderAutocast(Batch):
    def affine(self, y):
        return super().affine(y).half() if torch.is_autocast_enabled("cpu") else super().affine(y)

    def forward(self, x, mask=None):
        return super().forward(x, mask) if not torch.is_autocast_enabled("cpu") else self.affine(self.normalized(x))


@mutant("autocast-changes-no-statistic")
class DoublesUnderAutocast(Batch):
    def affine(self, y):
        return super().affine(y) * (2 if torch.is_autocast_enabled("cpu") else 1)


@mutant("autocast-changes-no-statistic", gradient_only=True)
class HalvesTheGradientUnderAutocast(Batch):
    def affine(self, y):
        return super().affine(with_gradient(y, halved) if torch.is_autocast_enabled("cpu") else y)


@mutant("inputs-are-left-alone")
class CentersInPlace(Batch):
    def by_batch(self, x, mean, var):
        y = super().by_batch(x, mean, var)
        x.data.sub_(column(mean, x))
        return y


@mutant("inputs-are-left-alone")
class CentersInPlaceInEvaluation(Batch):
    def by_running(self, x):
        y = super().by_running(x)
        x.data.sub_(1)
        return y


@mutant("inputs-are-left-alone")
class BlanksAnElement(Batch):
    def forward(self, x, mask=None):
        y = super().forward(x, mask)
        x.data.view(-1)[0] = 0
        return y


@mutant("inputs-are-left-alone", gradient_only=True)
class WritesToTheGradientItIsGiven(Batch):
    def forward(self, x, mask=None):
        return with_gradient(super().forward(x, mask), lambda g: g.mul_(2) / 2)


@mutant("state-dict-holds-the-state")
class SavesNoRunningMean(Batch):
    def __init__(self, num_features, **options):
        super().__init__(num_features, **options)
        self.register_buffer("running_mean", torch.zeros(num_features), persistent=False)


@mutant("state-dict-holds-the-state")
class ScalesByWhatItDoesNotSave(Batch):
    batches = 0

    def track(self, x, mean, var):
        super().track(x, mean, var)
        self.batches += 1

    def by_running(self, x):
        return super().by_running(x) * (1 + self.batches)


@mutant("state-dict-holds-the-state")
class LoadsNoBeta(Batch):
    def load_state_dict(self, state, **options):
        return super().load_state_dict({**state, "bias": torch.zeros_like(state["bias"])}, **options)


@mutant("state-dict-holds-the-state", gradient_only=True)
class ScalesItsGradientByWhatItDoesNotSave(ScalesByWhatItDoesNotSave):
    def by_running(self, x):
        factor = 1 + self.batches
        return Batch.by_running(self, with_gradient(x, lambda g: g * factor))


class Marked(Batch):
    """Not entered: keeps a mark that a copy must have."""

    def __init__(self, num_features, **options):
        super().__init__(num_features, **options)
        self.mark = True


@mutant("copies-are-equal")
class CopiesShareTheirState(Batch):
    def __deepcopy__(self, memo):
        return copy.copy(self)


@mutant("copies-are-equal")
class CopiesStartAnew(Batch):
    def __deepcopy__(self, memo):
        return type(self)(self.num_features).to(self.weight.dtype)


@mutant("copies-are-equal", "pickles-are-equal")
class CannotBeCopied(Batch):
    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle this layer")


@mutant("copies-are-equal", "pickles-are-equal", gradient_only=True)
class CopiesLoseHalfTheGradient(Marked):
    def __getstate__(self):
        return {**self.__dict__, "mark": False}

    def normalized(self, x):
        return super().normalized(x if self.mark else with_gradient(x, halved))


@mutant("pickles-are-equal")
class PicklesWithoutItsStatistics(Batch):
    def __reduce__(self):
        return type(self), (self.num_features,)


@mutant("pickles-are-equal")
class PicklesLoseTheScale(Marked):
    def __getstate__(self):
        return {**self.__dict__, "mark": False}

    def affine(self, y):
        return super().affine(y) * (1 if self.mark else 2)


@mutant("compiles-in-one-graph")
class BranchesOnAValue(Batch):
    def normalized(self, x):
        return super().normalized(x) if x.sum() > -1e9 else x


@mutant("compiles-in-one-graph")
class DiffersWhenCompiled(Batch):
    def affine(self, y):
        return super().affine(y) * (2 if torch.compiler.is_compiling() else 1)


@mutant("compiles-in-one-graph")
class TracksNothingWhenCompiled(Batch):
    def track(self, x, mean, var):
        if not torch.compiler.is_compiling():
            super().track(x, mean, var)


@mutant("compiles-in-one-graph", gradient_only=True)
class TakesTheMeanForAConstantWhenCompiled(Batch):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean.detach() if torch.compiler.is_compiling() else mean, var)


@mutant("maps-in-evaluation")
class ReadsAValueInEvaluation(Batch):
    def by_running(self, x):
        return super().by_running(x) if x.sum().item() > -1e9 else x


@mutant("maps-in-evaluation")
class CountsDimensions(Batch):
    def by_running(self, x):
        return super().by_running(x.view(x.untyped_storage().size() // x.element_size() // x.numel(), *x.shape)[0])


@mutant("maps-in-evaluation")
class DoublesWhenMapped(Batch):
    def by_running(self, x):
        return super().by_running(x) * (1 if torch._C._functorch.maybe_current_level() is None else 2)


@mutant("maps-in-evaluation", gradient_only=True)
class HalvesTheGradientWhenMapped(Batch):
    def by_running(self, x):
        y = super().by_running(x)
        return y if torch._C._functorch.maybe_current_level() is None else (y + y.detach()) / 2


@mutant("every-batch-size-serves")
class RefusesMoreThanAHundred(Batch):
    def forward(self, x, mask=None):
        if len(x) > 100:
            raise RuntimeError("too many examples")
        return super().forward(x, mask)


@mutant("every-batch-size-serves")
class GivesNanForTwo(Batch):
    def forward(self, x, mask=None):
        return super().forward(x, mask) / (len(x) - 2) * (len(x) - 2) if len(x) != 2 else x * torch.nan


@mutant("every-batch-size-serves")
class DropsTheLastOfThree(Batch):
    def forward(self, x, mask=None):
        return super().forward(x, mask)[: 2 if len(x) == 3 else None]


@mutant("every-batch-size-serves", gradient_only=True)
class HasNoGradientForThree(Batch):
    def forward(self, x, mask=None):
        return super().forward(x if len(x) != 3 else with_gradient(x, lambda g: g * torch.nan), mask)


@mutant("masked-elements-have-no-way-in")
class MasksOnlyItsOutput(Batch):
    def masked(self, x, mask):
        return torch.where(mask, Batch.forward(self, x), 0)


@mutant("masked-elements-have-no-way-in")
class LeavesTheMaskedInItsOutput(Batch):
    def masked(self, x, mask):
        return super().masked(x, mask) + torch.where(mask, 0, x.detach())


@mutant("masked-elements-have-no-way-in")
class CountsTheMaskedAsZeros(Batch):
    def masked(self, x, mask):
        return torch.where(mask, Batch.forward(self, torch.where(mask, x, 0)), 0)


@mutant("masked-elements-have-no-way-in", gradient_only=True)
class LeaksGradientToTheMasked(Batch):
    def masked(self, x, mask):
        return super().masked(with_gradient(x, lambda g: g + 1), mask)

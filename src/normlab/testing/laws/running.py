"""Running statistics: how they move, when they must not, and that they remember no graph."""

import copy
import gc
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normlab.testing.compare import Broken, describe, same, same_map
from normlab.testing.kinds import ALL, RANDOM
from normlab.testing.law import law
from normlab.testing.subject import DoesNotApply, Subject, eps_of, needs, run, step

TRACKING = frozenset({"batch", "mean-only", "variance-only"})
MOMENTUM = 0.3
STEPS = 4


@law(
    "r_t = (1 - m)^t r_0 + m sum_k (1 - m)^(t - k) s_k, s_k the mean and the unbiased variance",
    "1e-6 float32, 1e-13 float64, times k",
    TRACKING,
)
def running_average(subject: Subject) -> None:
    """Running statistics are the exponential average of the batches', and are what evaluation normalizes with."""
    shares = [MOMENTUM * (1 - MOMENTUM) ** (STEPS - 1 - k) for k in range(STEPS)]
    _averages(subject, MOMENTUM, (1 - MOMENTUM) ** STEPS, shares)


@law("momentum None: r_t = (1/t) sum_k s_k", "1e-6 float32, 1e-13 float64, times k", TRACKING)
def cumulative_average(subject: Subject) -> None:
    """With momentum None running statistics are the mean of all batches'."""
    _averages(subject, None, 0.0, [1 / STEPS] * STEPS)


@law(
    "Var = mean_k var_k + var_k mean_k, for equal batches",
    "1e-5 float32, 1e-12 float64, times k",
    frozenset({"batch"}),
)
def total_variance(subject: Subject) -> None:
    """The statistics of a union are those of its batches put together: the law of total variance."""
    parts = [subject.draw(seed=seed) for seed in range(3)]
    means, variances = [], []
    for part in parts:
        layer = subject.make(momentum=1.0)
        needs(layer, "running_mean", "running_var")
        step(layer, part)
        count = subject.rows(part, layer).shape[1]
        means.append(_buffer(layer, "running_mean"))
        variances.append(_buffer(layer, "running_var") * (count - 1) / count)
    layer = subject.make()
    mean = torch.stack(means).mean(0)
    var = torch.stack(variances).mean(0) + torch.stack(means).var(0, correction=0)
    union = torch.cat(parts)
    xh = (union - _column(mean, union)) * _column((var + eps_of(layer)).rsqrt(), union)

    def expected(x: Tensor) -> Tensor:
        # Its value is xh. Its gradient is that of batch normalization, written with the statistics put together.
        step = (x - x.detach()) * _column((var + eps_of(layer)).rsqrt(), x)
        rows = [0, *range(2, x.dim())]
        return xh + step - step.mean(rows, keepdim=True) - xh * (xh * step).mean(rows, keepdim=True)

    within = subject.exact(1e-12, 1e-5) * subject.condition(union, layer)
    same_map("y of the union", lambda x: run(layer, x), expected, within, union)


@law("d buffer / d (input, parameter) = 0", "exact", ALL)
def statistics_have_no_history(subject: Subject) -> None:
    """What a layer stores carries no autograd graph."""
    layer = subject.make(drawn=True)
    for seed in range(2):
        step(layer, subject.draw(seed=seed).requires_grad_())
    for path, module in layer.named_modules():
        for name, value in (vars(module) | module._buffers).items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.requires_grad:
                where = f"{path}.{name}".lstrip(".")
                raise Broken(f"{where} after two batches", describe([value.detach()]), "no graph", str(value.grad_fn))


@law("tensors kept after 100 steps = those kept after 1", "exact", ALL)
def memory_is_flat(subject: Subject) -> None:
    """No step keeps what an earlier one saved for its backward pass, nor its input."""
    layer = subject.make(drawn=True)
    alive: list[weakref.ref] = []

    def keep(saved: Tensor) -> "_Saved":
        holder = _Saved([saved.detach()])  # else what saves its own output would keep itself
        alive.append(weakref.ref(holder))
        return holder

    for seed in range(100):
        h = subject.draw(seed=seed).requires_grad_() * 1.0
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda holder: holder[0]):
            y = step(layer, h)
        alive += [weakref.ref(h), weakref.ref(y)]
        if y.requires_grad:
            y.sum().backward()
        del h, y
        if seed == 0:
            first = _living(alive)
    kept = _living(alive)
    if kept > first:
        raise Broken(
            "tensors kept after 100 steps", describe([subject.draw()]), f"the {first} of one step", str(kept)
        )


def _living(references: Sequence[weakref.ref]) -> int:
    """How many there still are, but for what only a cycle keeps; mostly none, and no cycle is looked for."""
    if any(reference() is not None for reference in references):
        gc.collect()
    return sum(reference() is not None for reference in references)


class _Saved(list):
    """A list that may be referred to weakly."""


@law("r_t = r_(t-1) where the batch has an inf or NaN, and y tells of it", "exact", ALL - RANDOM)
def nonfinite_batches_are_left_out(subject: Subject) -> None:
    """A batch with an inf or NaN is reported, and the layer goes on as if it had not been."""
    layer = subject.make(drawn=True)
    step(layer, subject.draw())
    for bad in (float("nan"), float("inf"), float("-inf")):
        spared = copy.deepcopy(layer)
        x = subject.draw(seed=1)
        x[:, 2] = bad
        y = step(layer, x)
        if subject.kind not in ("tanh", "rank") and bool(y.isfinite().all()):
            raise Broken(f"y of a batch with {bad}", describe([x]), "NaN or inf in it", "neither")
        for name, value in spared.state_dict().items():
            if not torch.equal(value, layer.state_dict()[name]):
                raise Broken(
                    f"{name} after a batch with {bad}", describe([x]), str(value), str(layer.state_dict()[name])
                )
        z = subject.draw(seed=2)
        for mode in (False, True):
            same_map(
                f"y after a batch with {bad}",
                lambda z, mode=mode: run(layer.train(mode), z),
                lambda z, mode=mode, spared=spared: run(spared.train(mode), z),
                0.0,
                z,
            )
        layer.train()


@law("evaluation: state after = state before, y(h) again = y(h)", "exact", ALL)
def evaluation_moves_nothing(subject: Subject) -> None:
    """Evaluation changes no parameter and no buffer, whatever it is given."""
    layer = subject.trained()
    _moves_nothing(subject, layer, "evaluation")


@law("training: state after = state before, y(h) as in evaluation", "exact", frozenset({"frozen"}))
def frozen_statistics_never_move(subject: Subject) -> None:
    """A frozen layer trains as it evaluates, and no buffer moves."""
    layer = subject.make(drawn=True)
    needs(layer, "running_mean", "running_var")
    with torch.no_grad():
        _buffer(layer, "running_mean").add_(0.5)
        _buffer(layer, "running_var").mul_(2.0)
    x = subject.draw()
    evaluating = copy.deepcopy(layer).eval()
    same_map("y in training", lambda x: run(layer, x), lambda x: run(evaluating, x), 0.0, x)
    _moves_nothing(subject, layer, "training")


def _moves_nothing(subject: Subject, layer: nn.Module, what: str) -> None:
    twin = copy.deepcopy(layer)
    for seed in range(3):
        step(layer, subject.draw(seed=20 + seed).requires_grad_())
    for name, value in twin.state_dict().items():
        found = layer.state_dict()[name]
        if not torch.equal(value, found):
            raise Broken(
                f"{name} after three batches in {what}", describe([subject.draw(seed=20)]), str(value), str(found)
            )
    x = subject.draw()
    same_map(f"y after three batches in {what}", lambda x: run(layer, x), lambda x: run(twin, x), 0.0, x)


def _averages(subject: Subject, momentum: float | None, left: float, shares: list[float]) -> None:
    layer = subject.make(momentum=momentum)
    stored = [name for name in ("running_mean", "running_var") if getattr(layer, name, None) is not None]
    if not stored:
        raise DoesNotApply("it has no running statistics")
    mean = _initial(layer, "running_mean", 0.0) * left
    var = _initial(layer, "running_var", 1.0) * left
    for share, seed in zip(shares, range(STEPS), strict=True):
        x = subject.draw(seed=seed)
        step(layer, x)
        rows = subject.rows(x, layer)
        mean, var = mean + share * rows.mean(1), var + share * rows.var(1)
    layer.eval()
    divides, centers = subject.kind != "mean-only", subject.kind != "variance-only"

    def expected(x: Tensor) -> Tensor:
        y = x - _column(mean, x) if centers else x
        return y * _column((var + eps_of(layer)).rsqrt(), x) if divides else y

    x = subject.draw(seed=9)
    within = subject.exact(1e-13, 1e-6) * subject.condition(x, layer)
    for name in stored:
        same(name, _buffer(layer, name), mean if name == "running_mean" else var, within, x)
    same_map("y by the running statistics", lambda x: run(layer, x), expected, within, x)


def _initial(layer: nn.Module, name: str, otherwise: float) -> Tensor:
    value = getattr(layer, name, None)
    return value.clone() if isinstance(value, Tensor) else torch.tensor(otherwise)


def _buffer(layer: nn.Module, name: str) -> Tensor:
    value = getattr(layer, name)
    assert isinstance(value, Tensor)
    return value


def _column(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))

"""What a normalization becomes at the ends of its options: another one, which is then made by its name."""

import copy
from typing import Any

from torch import Tensor, nn

from normlab.nn import make_norm, norm_names
from normlab.testing.compare import differ, same, same_map
from normlab.testing.law import law
from normlab.testing.subject import CHANNELS, DoesNotApply, Subject, eps_of, needs, run, step

UNCLIPPED: dict[str, Any] = {"r_max": 1e6, "d_max": 1e6}


@law("ghost_size = N: y = BN(h)", "8 u k", frozenset({"ghost"}))
def ghost_of_all_is_batch(subject: Subject) -> None:
    """One ghost that holds the full batch is batch normalization."""
    x = subject.draw()
    _same_layers(subject, subject.make(ghost_size=len(x)), "batch", x)


@law("ghost_size = 1: y = IN(h)", "8 u k", frozenset({"ghost"}))
def ghost_of_one_is_instance(subject: Subject) -> None:
    """Ghosts of one example each are instance normalization, where there are positions."""
    if not subject.spatial:
        raise DoesNotApply("its input has no positions")
    _same_layers(subject, subject.make(ghost_size=1), "instance", subject.draw())


@law("num_groups = 1: GN(h) = LN(h)", "8 u k", frozenset({"group"}))
def one_group_is_layer(subject: Subject) -> None:
    """One group of all channels is layer normalization."""
    _same_layers(subject, subject.make(num_groups=1), "layer", subject.draw())


@law("num_groups = C: GN(h) = IN(h)", "8 u k", frozenset({"group"}))
def groups_of_one_are_instance(subject: Subject) -> None:
    """As many groups as channels are instance normalization, where there are positions."""
    if not subject.spatial:
        raise DoesNotApply("its input has no positions")
    _same_layers(subject, subject.make(num_groups=CHANNELS), "instance", subject.draw())


@law("LN(h) = RMSNorm(h - mean h)", "8 u k", frozenset({"layer"}))
def layer_is_rms_of_the_centered(subject: Subject) -> None:
    """Layer normalization is root mean square normalization of what has been centered."""
    layer, x = subject.make(), subject.draw()
    rms = _other(subject, "rms", layer)
    within = 8 * subject.u * subject.condition(x, layer)
    same_map("y against rms", lambda x: run(layer, x), lambda x: run(rms, x - x.mean(1, keepdim=True)), within, x)


@law("RMSNorm(h + c) != RMSNorm(h)", "a tenth", frozenset({"rms", "response"}))
def rms_sees_a_shift(subject: Subject) -> None:
    """What subtracts no mean is not shift-invariant, in values or gradients."""
    layer, x = subject.make(), subject.draw()
    differ("y of h + 2", lambda x: run(layer, x + 2), lambda x: run(layer, x), 0.1, x)


@law(
    "r, d without limits: y in training = y in evaluation",
    "1e-5 float32, 1e-12 float64, times k",
    frozenset({"renorm"}),
)
def renorm_trains_as_it_evaluates(subject: Subject) -> None:
    """Without limits on r and d the output in training is that in evaluation."""
    layer, x = subject.make(**UNCLIPPED, **_at_once(subject)), subject.draw()
    _move_statistics(subject, layer)
    evaluating = copy.deepcopy(layer).eval()
    within = subject.exact(1e-12, 1e-5) * subject.condition(x, layer)
    same("y in training", run(layer, x), run(evaluating, x), within, x)
    _check_renorm_gradient(subject, layer, x, within)


@law("r = 1, d = 0: y = BN(h)", "1e-5 float32, 1e-12 float64, times k", frozenset({"renorm"}))
def renorm_without_correction_is_batch(subject: Subject) -> None:
    """With limits that leave r = 1 and d = 0 it is batch normalization."""
    layer, x = subject.make(r_max=1.0, d_max=0.0), subject.draw()
    _move_statistics(subject, layer)
    batch = _other(subject, "batch", layer)
    within = subject.exact(1e-12, 1e-5) * subject.condition(x, layer)
    same_map("y against batch", lambda x: run(layer, x), lambda x: run(batch, x), within, x)


@law("dr = dd = 0: dh = r dBN(h)", "1e-5 float32, 1e-12 float64, times k", frozenset({"renorm"}))
def renorm_corrections_are_constants(subject: Subject) -> None:
    """The corrections carry no gradient: it is that of r BN(h) + d with constants r and d."""
    layer, x = subject.make(**UNCLIPPED, **_at_once(subject)), subject.draw()
    _move_statistics(subject, layer)
    _check_renorm_gradient(subject, layer, x, subject.exact(1e-12, 1e-5) * subject.condition(x, layer))


def _check_renorm_gradient(subject: Subject, layer: nn.Module, x: Tensor, within: float) -> None:
    batch = _other(subject, "batch", layer)
    mean, var = layer.running_mean, layer.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(var, Tensor)
    column = (1, -1, *[1] * (x.dim() - 2))
    rows, inverse = subject.rows(x, layer), (var + eps_of(layer)).rsqrt()
    r = ((rows.var(1, correction=0) + eps_of(layer)).sqrt() * inverse).reshape(column)
    d = ((rows.mean(1) - mean) * inverse).reshape(column)
    same_map("y against r BN(h) + d", lambda x: run(layer, x), lambda x: r * run(batch, x) + d, within, x)


def _move_statistics(subject: Subject, layer: nn.Module) -> None:
    needs(layer, "running_mean", "running_var")
    for seed in range(3):
        step(layer, subject.draw(seed=10 + seed))


def _at_once(subject: Subject) -> dict[str, Any]:
    """No schedule of limits, if the factory knows of one."""
    try:
        subject.make(schedule=None)
    except DoesNotApply:
        return {}
    return {"schedule": None}


def _other(subject: Subject, name: str, layer: nn.Module) -> nn.Module:
    """The counterpart by its name, of the same eps and inputs; DoesNotApply while there is none of that name."""
    if name not in norm_names():
        raise DoesNotApply(f"there is no normalization {name} to compare it with")
    return make_norm(name, CHANNELS, max(len(subject.spatial), 1), eps=eps_of(layer)).to(subject.dtype)


def _same_layers(subject: Subject, layer: nn.Module, name: str, x: Tensor) -> None:
    other = _other(subject, name, layer)
    within = 8 * subject.u * subject.condition(x, layer)
    same_map(f"y against {name}", lambda x: run(layer, x), lambda x: run(other, x), within, x)

"""norms: the normalization layers of any model, torch's, ours and those of libraries that write their own."""

import dataclasses
import re

from torch import Tensor, nn

from normlab.surgery.find import BatchNorm

FAMILIES: dict[str, tuple[type[nn.Module], ...]] = {
    "batch": (BatchNorm,),
    "instance": (nn.modules.instancenorm._InstanceNorm,),
    "group": (nn.GroupNorm,),
    "layer": (nn.LayerNorm,),
    "rms": (nn.RMSNorm,),
}
"""Family to torch's classes, from which ours are derived."""

_NAMED = (
    ("rms", re.compile(r"RMS_?Norm|^T5LayerNorm|^\w*T5LayerNorm")),
    ("group", re.compile(r"GroupNorm")),
    ("layer", re.compile(r"LayerNorm")),
    ("instance", re.compile(r"InstanceNorm")),
    ("batch", re.compile(r"BatchNorm(?!orm)")),
    ("other", re.compile(r"Norm(alization)?(\d+d)?$|DynamicTanh|^DyT$")),
)
"""What the name of a class says that is derived from none of them, the first that fits."""
EPS = ("eps", "epsilon", "variance_epsilon", "norm_eps")
"""What layers call it."""


@dataclasses.dataclass(frozen=True)
class Norm:
    """One normalization layer of a model."""

    path: str
    module: nn.Module
    family: str
    """A key of FAMILIES, or `other`."""
    eps: float | None
    """None where it has none, or none that is a number."""
    weight: Tensor | None
    bias: Tensor | None

    @property
    def frozen(self) -> bool:
        """Whether no parameter of it takes a gradient; False where it has none."""
        held = [each for each in (self.weight, self.bias) if each is not None]
        return bool(held) and not any(each.requires_grad for each in held)


def norms_of(model: nn.Module) -> dict[str, Norm]:
    """Path to norm, in order of registration; a layer used under several names appears once.

    A layer counts by its class, or, where it holds no further modules, by the name of its class (RMSNorm,
    LlamaRMSNorm, LayerNorm2d ...), as libraries write their own.
    """
    found: dict[str, Norm] = {}
    for path, module in model.named_modules():
        family = family_of(module)
        if family is not None:
            eps = next((getattr(module, name) for name in EPS if hasattr(module, name)), None)
            found[path] = Norm(
                path=path,
                module=module,
                family=family,
                eps=float(eps) if isinstance(eps, int | float) else None,
                weight=_vector(module, "weight"),
                bias=_vector(module, "bias"),
            )
    return found


def family_of(module: nn.Module) -> str | None:
    """The family that a module is of, or None if it is no norm."""
    for family, classes in FAMILIES.items():
        if isinstance(module, classes):
            return family
    if any(module.children()):
        return None
    return next((family for family, named in _NAMED if named.search(type(module).__name__)), None)


def is_by_channel(norm: nn.Module) -> bool:
    """Whether each channel of each example is brought to mean 0 over its positions, now and under evaluation."""
    if isinstance(norm, nn.modules.instancenorm._InstanceNorm):
        return not norm.track_running_stats
    return isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels


def _vector(module: nn.Module, name: str) -> Tensor | None:
    value = getattr(module, name, None)
    return value if isinstance(value, Tensor) else None

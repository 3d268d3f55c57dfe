"""Which layers of a model are looked at: the affine ones, norms, activations, or everything that holds no module."""

import functools
from collections.abc import Sequence

from torch import nn

from normlab.errors import NormlabError, choose
from normlab.nn import find_norm, norm_names
from normlab.surgery.find import BatchNorm
from normlab.surgery.flow import Affine

KINDS = ("affine", "norm", "activation", "leaf")

_ACTIVATIONS = tuple(
    getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__ if name != "MultiheadAttention"
)


def layers(model: nn.Module, kinds: str | Sequence[str]) -> dict[str, nn.Module]:
    """Path to layer for all of these kinds, in order of registration.

    "affine" (linear and convolutions), "norm" (torch's, ours, and any whose class has `norm` in its name),
    "activation" (torch's) and "leaf" (whatever holds no module). Functions that a forward calls are no layers.

    Raises NormlabError on another kind, and where the model has no such layer.
    """
    wanted = check_kinds(kinds)
    found = {path: module for path, module in model.named_modules() if any(_is(module, kind) for kind in wanted)}
    if not found:
        raise NormlabError(f"layers that are modules ({', '.join(wanted)})", "none", "write functions as layers")
    return found


def check_kinds(kinds: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds as a tuple; NormlabError unless they are some, and known."""
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in wanted:
        choose(dict.fromkeys(KINDS), kind, "kind of layer")
    if not wanted:
        raise NormlabError("kinds of layers, one at least", "none", f"there are {', '.join(KINDS)}")
    return wanted


def is_norm(module: nn.Module) -> bool:
    """Torch's and our normalizations, and any whose class has `norm` in its name."""
    return isinstance(module, _norms()) or "norm" in type(module).__name__.lower()


def _is(module: nn.Module, kind: str) -> bool:
    if kind == "affine":
        return isinstance(module, Affine)
    if kind == "norm":
        return is_norm(module)
    if kind == "activation":
        return isinstance(module, _ACTIVATIONS)
    return not any(module.children())


@functools.cache
def _norms() -> tuple[type[nn.Module], ...]:
    ours = (layer for name in norm_names() if name != "none" for layer in find_norm(name).values())
    return BatchNorm, *(layer for layer in ours if isinstance(layer, type))

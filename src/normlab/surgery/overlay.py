"""Another behaviour for a layer that stays the same object, with its hooks, parameters and state_dict: a class over
its own, as `torch.nn.utils.parametrize` makes them.
"""

from collections.abc import Callable
from typing import Any

from torch import nn


def lay_over(layer: nn.Module, behaviour: type[nn.Module], **settings: Any) -> Callable[[], None]:
    """Let a behaviour, whose `forward` may call the layer's own by `super()`, come first; returns the way back,
    in whatever order several are taken off.

    `settings` become attributes of the layer.
    """
    layer.__class__ = _class_over(behaviour, type(layer))
    vars(layer).update(settings)

    def undo() -> None:
        take_off(layer, behaviour)
        for name in settings:
            vars(layer).pop(name, None)

    return undo


def take_off(layer: nn.Module, behaviour: type[nn.Module]) -> None:
    """Leave the layer its own class, and what else was laid over it."""
    others = [each for each in getattr(layer, "_behaviours", ()) if each is not behaviour]
    layer.__class__ = _class_of(beneath(layer), *others)


def beneath(layer: nn.Module) -> type[nn.Module]:
    """The layer's own class, without what was laid over it."""
    return getattr(layer, "_own_class", type(layer))


_MADE: dict[tuple[type, type], type[nn.Module]] = {}


def _class_over(behaviour: type, kind: type) -> type[nn.Module]:
    if (behaviour, kind) not in _MADE:
        own_class = getattr(kind, "_own_class", kind)
        behaviours = (*getattr(kind, "_behaviours", ()), behaviour)
        attributes = {
            "__doc__": behaviour.__doc__,
            "__module__": behaviour.__module__,
            "_own_class": own_class,
            "_behaviours": behaviours,
            # No name leads to a class made here: copies and pickles make it again from those that have one.
            "__reduce_ex__": lambda layer, _: (_empty, (own_class, *behaviours), vars(layer)),
        }
        _MADE[behaviour, kind] = type(f"{behaviour.__name__}{kind.__name__}", (behaviour, kind), attributes)
    return _MADE[behaviour, kind]


def _class_of(kind: type[nn.Module], *behaviours: type[nn.Module]) -> type[nn.Module]:
    for behaviour in behaviours:
        kind = _class_over(behaviour, kind)
    return kind


def _empty(*kinds: type[nn.Module]) -> nn.Module:
    made = _class_of(*kinds)
    return made.__new__(made)

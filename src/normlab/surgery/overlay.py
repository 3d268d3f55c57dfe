"""Another behaviour for a layer that stays the same object, with its hooks, parameters and state_dict: a class over
its own, as `torch.nn.utils.parametrize` makes them.
"""

from collections.abc import Callable
from typing import Any

from torch import nn


def lay_over(layer: nn.Module, behaviour: type[nn.Module], **settings: Any) -> Callable[[], None]:
    """Let a behaviour, whose `forward` may call the layer's own by `super()`, come first; returns the way back.

    `settings` become attributes of the layer.
    """
    before = type(layer)
    layer.__class__ = _class_over(behaviour, before)
    vars(layer).update(settings)

    def undo() -> None:
        layer.__class__ = before
        for name in settings:
            vars(layer).pop(name, None)

    return undo


def beneath(layer: nn.Module) -> type:
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


def _empty(kind: type[nn.Module], *behaviours: type[nn.Module]) -> nn.Module:
    for behaviour in behaviours:
        kind = _class_over(behaviour, kind)
    return kind.__new__(kind)

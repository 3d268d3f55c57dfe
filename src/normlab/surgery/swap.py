"""swap: any normalization for any other, with the parameters and statistics that both have."""

import dataclasses
import functools
from typing import Any

from torch import nn

from normlab.errors import NormlabError
from normlab.nn import find_norm, make_norm
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms, dimension, parents


@dataclasses.dataclass(frozen=True)
class swap:
    """Replace every `source` norm by `target`: swap("batch", "none"), swap("batch", "pkg.module:MyNorm").

    `source` is "batch", which is torch's and ours of any dimension. `target` is a name for
    `normlab.nn.make_norm`, with `options`. Tensors that both layers hold under the same name and shape
    (gamma, beta, running statistics), device, dtype and train/eval mode are carried over.

    Raises NormlabError on an unknown name, and where the model itself is the norm. The model is then as before.
    """

    source: str
    target: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source != "batch":
            raise NormlabError("'batch' as the norm to be swapped", repr(self.source))
        find_norm(self.target)

    def __call__(self, model: nn.Module) -> Changes:
        found = batch_norms(model)
        # All that can fail comes first.
        places = {path: parents(model, path) for path in found}
        made = {path: self._successor(norm) for path, norm in found.items()}
        changes = Changes()
        for path, norm in found.items():
            _put(made[path], places[path])
            changes.record(path, f"{norm} -> {made[path]}", functools.partial(_put, norm, places[path]))
        return changes

    def _successor(self, norm: BatchNorm) -> nn.Module:
        new = make_norm(self.target, norm.num_features, dimension(norm), **self.options)
        state = new.state_dict()
        for name, value in norm.state_dict().items():
            if name in state and state[name].shape == value.shape:
                state[name] = value
        new.load_state_dict(state)
        for value in (*norm.parameters(), *norm.buffers()):
            if value.is_floating_point():
                new.to(value.device, value.dtype)
        frozen = {name for name, parameter in norm.named_parameters() if not parameter.requires_grad}
        for name, parameter in new.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in frozen)
        return new.train(norm.training)


def _put(module: nn.Module, places: list[tuple[nn.Module, str]]) -> None:
    for parent, name in places:
        setattr(parent, name, module)

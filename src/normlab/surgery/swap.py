"""swap: any normalization for any other, with the parameters and statistics that both have."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from normlab.errors import NormlabError
from normlab.nn import find_norm, make_norm
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, batch_norms, dimension, is_shapeless, parents, put

SETTINGS = ("eps", "momentum", "affine", "track_running_stats")


@dataclasses.dataclass(frozen=True)
class swap:
    """Replace every `source` norm by `target`: swap("batch", "none"), swap("batch", "pkg.module:MyNorm").

    `source` is "batch", which is torch's and ours of any dimension. `target` is a name for
    `normlab.nn.make_norm`, with `options`. Tensors that both layers hold under the same name and shape
    (gamma, beta, running statistics) are carried over with their device, dtype and requires_grad, and so is
    train/eval mode; between batch norms, eps, momentum, affine and track_running_stats too, where `options`
    do not say otherwise.

    Raises NormlabError on an unknown name, where the model itself is the norm, and for a lazy norm that has
    not seen its first batch. The model is then as before.
    """

    source: str
    target: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source != "batch":
            raise NormlabError("'batch' as the norm to be swapped", repr(self.source))
        find_norm(self.target)

    def __call__(self, model: nn.Module) -> Changes:
        return exchange(model, batch_norms(model), self.target, self.options)


def exchange(model: nn.Module, norms: Mapping[str, BatchNorm], target: str, options: dict[str, Any]) -> Changes:
    """Replace these norms of a model, by their paths, as `swap` says."""
    # All that can fail comes first.
    places = {path: parents(model, path) for path in norms}
    made = {path: _successor(norm, path, target, options) for path, norm in norms.items()}
    changes = Changes()
    for path, norm in norms.items():
        put(made[path], places[path])
        changes.record(path, f"{norm} -> {made[path]}", functools.partial(put, norm, places[path]))
    return changes


def _successor(norm: BatchNorm, path: str, target: str, options: dict[str, Any]) -> nn.Module:
    if is_shapeless(norm):
        raise NormlabError("norms of a known width", f"a {type(norm).__name__} at {path}", "run a batch through")
    new = make_norm(target, norm.num_features, dimension(norm), **_settings(norm, target) | options)
    old = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
    floating = [value for value in old.values() if value.is_floating_point()]
    if floating:
        new.to(floating[0].device, floating[0].dtype)
    for name, value in (*new.named_parameters(), *new.named_buffers()):
        if name in old and old[name].shape == value.shape:
            value.data = old[name].detach().clone()
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and (name not in old or old[name].requires_grad))
    return new.train(norm.training)


def _settings(norm: BatchNorm, target: str) -> dict[str, Any]:
    layer = find_norm(target)[dimension(norm)]
    between = isinstance(layer, type) and issubclass(layer, BatchNorm)
    return {name: getattr(norm, name) for name in SETTINGS} if between else {}

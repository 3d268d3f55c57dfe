"""swap: any normalization for any other, with the parameters and statistics that both have."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normlab import nn as ours
from normlab.errors import NormlabError, is_reference, parameters_of
from normlab.nn import find_norm, make_norm
from normlab.norms.group import groups_for
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, is_shapeless, parents, put
from normlab.surgery.last_dimension import LastDimension
from normlab.surgery.options import with_options
from normlab.surgery.sources import Layout, layout_of, norms_named

SETTINGS = ("eps", "momentum", "affine", "track_running_stats")
ROOTED = (
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(ours.LayerNorm1d, ours.LayerNorm2d, ours.LayerNorm3d, ours.RMSNorm1d, ours.RMSNorm2d, ours.RMSNorm3d),
)
"""What divides by a root that eps is added under."""


@with_options
class swap:
    """Replace every `source` norm by `target`: swap("batch", "none"), swap("layer", "pkg.module:MyNorm").

    `source` is a name of `normlab.nn.norm_names()`, which means torch's layers and ours of any dimension ("batch"
    is all that derives from torch's), or a class of the user's. `target` is a name for `normlab.nn.make_norm`, with
    `options`. Tensors that both layers hold under the same name and shape (gamma, beta, running statistics) are
    carried over with their device, dtype and requires_grad, and so are train/eval mode, whether there is a gamma,
    and eps where it means the same; between batch norms momentum and track_running_stats too. All this where
    `options` do not say otherwise. Groups are as many as divide the channels with two or more in each, up to 32.

    `torch.nn.LayerNorm(C)` and `RMSNorm(C)` normalize the last dimension, position by position: what takes their
    place stands in a `LastDimension`, for which each position is an example. Those of (C, *spatial) become layers
    with one gamma for each channel. `left` says where that, or the target, does not fit, and why.

    Raises NormlabError on an unknown name, where the model itself is the norm, and for a lazy norm that has
    not seen its first batch. The model is then as before.
    """

    source: str
    target: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        find_norm(self.source)
        if self.source == "none":
            raise NormlabError("a norm to be swapped", "'none'", "an identity does not say where a norm would stand")
        find_norm(self.target)

    def __call__(self, model: nn.Module) -> Changes:
        norms, left = norms_named(model, self.source)
        changes = exchange(model, norms, self.target, self.options)
        changes.left |= left
        return changes


def exchange(model: nn.Module, norms: Mapping[str, nn.Module], target: str, options: dict[str, Any]) -> Changes:
    """Replace these norms of a model, by their paths, as `swap` says."""
    # All that can fail comes first.
    places = {path: parents(model, path) for path in norms}
    made: dict[str, nn.Module] = {}
    changes = Changes()
    for path, norm in norms.items():
        if is_shapeless(norm):
            raise NormlabError("norms of a known width", f"a {type(norm).__name__} at {path}", "run a batch through")
        if target == "none":
            made[path] = nn.Identity().train(norm.training)
            continue
        layout = layout_of(norm, model)
        if isinstance(layout, str):
            changes.left[path] = layout
        elif misfit := _misfit(norm, layout, target, options):
            changes.left[path] = misfit
        else:
            made[path] = _successor(norm, layout, target, options)
    for path, new in made.items():
        done = f"{norms[path]} -> {new}{_dropped(norms[path], new)}"
        changes.record(path, done, _replace(norms[path], new, places[path]))
    return changes


def _dropped(old: nn.Module, new: nn.Module) -> str:
    """What of gamma and beta a new layer that has parameters does not take over."""
    held = {name.rpartition(".")[2] for name, _ in new.named_parameters()}
    dropped = [name for name, _ in old.named_parameters() if name not in held]
    return f", without its {' and '.join(dropped)}" if held and dropped else ""


def _replace(old: nn.Module, new: nn.Module, places: list[tuple[nn.Module, str]]) -> Callable[[], None]:
    put(new, places)
    # The native path of torch's encoder layers takes what stands there for a LayerNorm; this is how they leave it.
    encoders = [parent for parent, _ in places if isinstance(parent, nn.TransformerEncoderLayer)]
    kept = [parent.activation_relu_or_gelu for parent in encoders]
    for parent in encoders:
        parent.activation_relu_or_gelu = 0

    def undo() -> None:
        put(old, places)
        for parent, value in zip(encoders, kept, strict=True):
            parent.activation_relu_or_gelu = value

    return undo


def _misfit(norm: nn.Module, layout: Layout, target: str, options: dict[str, Any]) -> str:
    """Why the target cannot stand there; empty if it can."""
    if layout.last and target in ("instance", "filter-response"):
        return f"{target} normalization is over positions, each of which is an example here"
    if not layout.positions and target == "instance":
        return "instance normalization is over positions, and there are none"
    groups = {"layer": 1, "group": options.get("num_groups") or groups_for(layout.num_features)}
    if not layout.positions and groups.get(target) == layout.num_features:
        return f"{target} normalization of one value gives beta, whatever the value"
    shaped = isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    if shaped and any(_per_channel(value) is None for value in norm.parameters(recurse=False)):
        return "its gamma and beta differ from position to position"
    return ""


def _successor(norm: nn.Module, layout: Layout, target: str, options: dict[str, Any]) -> nn.Module:
    new = make_norm(target, layout.num_features, layout.dim, **_settings(norm, layout, target) | options)
    old = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
    floating = [value for value in old.values() if value.is_floating_point()]
    if floating:
        new.to(floating[0].device, floating[0].dtype)
    for name, value in (*new.named_parameters(), *new.named_buffers()):
        before = old.get(re.sub(r"^domains\.\d+\.", "", name))  # each domain begins with what there was
        if before is None:
            continue
        carried = before if before.shape == value.shape else _per_channel(before)
        if carried is not None and carried.shape == value.shape:
            value.data = carried.detach().clone()
            value.requires_grad_(before.requires_grad and value.requires_grad)
    return (LastDimension(new) if layout.last else new).train(norm.training)


def _per_channel(value: Tensor) -> Tensor | None:
    """One number for each channel, from (C,) or from (C, *spatial) that is the same at all positions."""
    if value.dim() < 2:
        return value
    flat = value.flatten(1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def _settings(norm: nn.Module, layout: Layout, target: str) -> dict[str, Any]:
    layer = find_norm(target)[layout.dim]
    over_batch = target == "domain" or (isinstance(layer, type) and issubclass(layer, BatchNorm))
    if over_batch and isinstance(norm, BatchNorm):
        return {name: getattr(norm, name) for name in SETTINGS}
    settings: dict[str, Any] = {}
    if not is_reference(target) or "affine" in parameters_of(layer):
        settings["affine"] = getattr(norm, "weight", None) is not None
    if isinstance(norm, ROOTED) and (over_batch or target in ("layer", "group", "instance", "rms")):
        settings["eps"] = norm.eps
        if norm.eps is None:  # an RMSNorm's, of the precision that it works in
            settings["eps"] = torch.finfo(next((p.dtype for p in norm.parameters()), torch.float32)).eps
    if isinstance(norm, nn.GroupNorm) and target == "group":
        settings["num_groups"] = norm.num_groups
    return settings

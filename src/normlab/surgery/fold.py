"""fold: what a batch norm does in evaluation, done by the layer before it or behind it."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from normlab.surgery.changes import Changes
from normlab.surgery.compose import Composed
from normlab.surgery.find import BatchNorm, batch_norms, parents, put
from normlab.surgery.flow import Link, links
from normlab.surgery.foldable import depends, differs, escapes
from normlab.surgery.modes import evaluating
from normlab.surgery.options import with_options

_IDLE = {nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout}
"""What gives back in evaluation what it gets."""


@with_options
class fold:
    """Let the conv or linear layer that feeds a batch norm do its work too, or else the one that it feeds; the norm
    gives way to the identity. Exact, up to rounding, for what the model computes in evaluation mode.

    The layer gets new parameters under the names of its own, in their dtype; `undo` brings the original ones back,
    for which an optimizer may be waiting. Pairs are found in the data flow. Left, with the reason, is every norm:

    - in training mode, where its output depends on the batch (a frozen norm's does not), or that keeps no running
      statistics, or of a class that does something of its own;
    - where what goes over is used elsewhere too (one conv, two norms), the norm or the layer is used more than once,
      a hook watches, or the layer's class or its weight is not torch's own (parametrizations);
    - that no layer before it can take up, where the one behind it pads with zeros or is a transposed conv of more
      than one tap, and so meets the norm's shift in some places only;
    - beside a linear layer, unless (N, C) is known to go over. Of (N, C, L) the layer takes the last dimension and
      the norm dimension 1. That something was flattened shows it; else `rows` says it for the whole model.

    A DistributedDataParallel that loses its last buffer cannot run (torch 2.13): evaluate its `module`.
    """

    rows: bool = False

    def __call__(self, model: nn.Module) -> Changes:
        return _Plan(model, self.rows).carry_out()


class _Plan:
    """Which norm goes into which layer, and what the layers then are."""

    def __init__(self, model: nn.Module, rows: bool) -> None:
        self._model, self._rows = model, rows
        self._norms = batch_norms(model)
        with evaluating(model):
            found = list(links(model))
        self._feeds = {link.target: link for link in found}
        self._takes = {link.source: link for link in found}
        self._composed: dict[str, Composed] = {}
        self._into: dict[str, str] = {}
        self._left: dict[str, str] = {}
        in_order = dict.fromkeys(path for link in found for path in (link.source, link.target) if path in self._norms)
        maps = []
        for path in {**in_order, **dict.fromkeys(self._norms)}:
            if reason := depends(self._norms[path]):
                self._left[path] = reason
            elif reason := self._fold(path, behind=True):
                self._left[path] = reason
                maps.append(path)
        # From the last one on: what a norm feeds may be a norm that is gone by then.
        for path in reversed(maps):
            if reason := self._fold(path, behind=False):
                self._left[path] += f"; {reason}"
            else:
                del self._left[path]

    def carry_out(self) -> Changes:
        # All that can fail comes first.
        parameters = {path: each.parameters() for path, each in self._composed.items()}
        places = {path: parents(self._model, path) for path in self._into}
        changes = Changes(left=self._left)
        for path, layer_path in self._into.items():
            norm, layer = self._norms[path], self._model.get_submodule(layer_path)
            undo = functools.partial(_set, norm, places[path], layer, dict(layer._parameters))
            _set(nn.Identity().train(norm.training), places[path], layer, parameters[layer_path])
            changes.record(path, f"folded into {layer_path}", undo)
        return changes

    def _fold(self, path: str, *, behind: bool) -> str | None:
        """Compose the norm with the layer that it stands behind, or before; the reason where that is not the same."""
        layer_path, way = self._neighbour(path, behind)
        if layer_path is None:
            return "no layer feeds it directly, as far as the data flow can be traced" if behind else "it feeds none"
        layer, norm = self._model.get_submodule(layer_path), self._norms[path]
        if reason := escapes(self._model, way):
            return reason
        if reason := differs(norm, layer, behind=behind, rows=self._rows or way[0].rows):
            return f"{layer_path}, which {'feeds' if behind else 'takes'} it, {reason}"
        composed = self._composed.get(layer_path) or Composed.of(layer)
        composed = (composed.then if behind else composed.after)(*_as_map(norm))
        if not all(each.isfinite().all() for each in composed.parameters().values()):
            return f"{layer_path} would hold numbers beyond {layer.get_parameter('weight').dtype}"
        self._composed[layer_path], self._into[path] = composed, layer_path
        return None

    def _neighbour(self, path: str, behind: bool) -> tuple[str | None, list[Link]]:
        """The nearest module that does something, going against the data flow or with it, and the links to it."""
        way = []
        steps = self._feeds if behind else self._takes
        while path in steps:
            way.append(steps[path])
            path = way[-1].source if behind else way[-1].target
            if path not in self._into and type(self._model.get_submodule(path)) not in _IDLE:
                return path, way
        return None, way


def _as_map(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of an evaluation, in float64 on the CPU."""

    def exact(value: Tensor | None, default: float) -> Tensor:
        return torch.full((), default) if value is None else value.detach().to("cpu", torch.float64)

    scale = (exact(norm.running_var, 1) + norm.eps).rsqrt() * exact(norm.weight, 1)
    return scale, exact(norm.bias, 0) - exact(norm.running_mean, 0) * scale


def _set(
    module: nn.Module,
    places: list[tuple[nn.Module, str]],
    layer: nn.Module,
    parameters: Mapping[str, nn.Parameter | None],
) -> None:
    put(module, places)
    for name, parameter in parameters.items():
        layer.register_parameter(name, parameter)

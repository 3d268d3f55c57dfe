"""NL105."""

import copy
from collections.abc import Iterator, Sequence

from torch import nn

from normlab.norms.group import groups_for
from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.find import BatchNorm, is_shapeless, parents, put
from normlab.surgery.flow import Link


class ChannelsMismatch(Rule):
    """A norm is made for the number of channels that the layer before it gives. With another one the forward pass
    raises an error, or, in a branch that is rarely taken, will.
    """

    id = "NL105"
    severity = "error"
    title = "a norm for another number of channels than come in"
    source = "torch.nn.BatchNorm2d (num_features), GroupNorm (num_channels), LayerNorm (normalized_shape)"
    remedy = "make the norm for as many channels as the layer before it gives"

    def check(self, model: nn.Module, flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            source, norm = model.get_submodule(link.source), model.get_submodule(link.target)
            if is_shapeless(source) or is_shapeless(norm):
                continue
            given, taken = _given_and_taken(source, norm)
            if given != taken:
                yield link.target, f"is for {taken} channels, but {link.source} gives {given}"

    def mend(self, paths: Sequence[str], model: nn.Module, flow: list[Link]) -> Surgery:
        wanted = {
            link.target: _given_and_taken(*map(model.get_submodule, (link.source, link.target)))[0] for link in flow
        }

        def widen(model: nn.Module, path: str) -> Mended:
            norm, places, channels = model.get_submodule(path), parents(model, path), wanted[path]
            assert channels is not None
            new = _new(norm, channels)
            put(new, places)
            return f"{norm} -> {new}, as new", lambda: put(norm, places)

        return changed(tuple(paths), widen)


def _given_and_taken(source: nn.Module, norm: nn.Module) -> tuple[int | None, int | None]:
    """Of the dimension that both count; None of either where they count different ones, or it does not matter."""
    if isinstance(source, nn.modules.conv._ConvNd):
        if isinstance(norm, BatchNorm):
            return source.out_channels, norm.num_features
        if isinstance(norm, nn.GroupNorm):
            return source.out_channels, norm.num_channels
    if isinstance(source, nn.Linear) and isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return source.out_features, norm.normalized_shape[-1]
    return None, None


def _new(norm: nn.Module, channels: int) -> nn.Module:
    """The norm with its settings for another number of channels, its parameters and statistics as new."""
    new = copy.deepcopy(norm)
    if isinstance(new, BatchNorm):
        new.num_features = channels
    elif isinstance(new, nn.GroupNorm):
        new.num_channels = channels
        new.num_groups = new.num_groups if channels % new.num_groups == 0 else groups_for(channels)
    elif isinstance(new, nn.LayerNorm | nn.RMSNorm):
        new.normalized_shape = (*new.normalized_shape[:-1], channels)
    for name, parameter in list(new.named_parameters(recurse=False)):
        shape = (*parameter.shape[:-1], channels)
        new.register_parameter(name, nn.Parameter(parameter.new_empty(shape), parameter.requires_grad))
    for name, buffer in list(new.named_buffers(recurse=False)):
        if buffer.dim():  # no count of batches
            setattr(new, name, buffer.new_empty(channels))
    assert isinstance(new, BatchNorm | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm)
    new.reset_parameters()
    return new

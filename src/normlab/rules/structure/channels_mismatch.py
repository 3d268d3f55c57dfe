"""NL105."""

from collections.abc import Iterator

from torch import nn

from normlab.rules.rule import Found, Rule
from normlab.surgery.find import BatchNorm, is_shapeless
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

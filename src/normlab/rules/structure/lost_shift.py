"""NL108."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.compose import channels_of
from normlab.surgery.flow import Affine, Link

ACTIVATIONS = tuple(
    getattr(nn, name)
    for name in ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh")
)


class LostShift(Rule):
    """A layer before a batch norm is made without a bias, since beta shifts its output. Where the norm is taken out
    again, and nn.Identity() put in its place, nothing is left that shifts what goes into the activation: each unit
    can only switch at 0. The network has fewer functions to choose from than one that never had a norm.
    """

    id = "NL108"
    severity = "note"
    title = "no bias, and where the norm stood there is an identity: nothing shifts the activation"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2: the bias is subsumed by beta"
    remedy = "bias=True where the layer is made; to take out a trained norm, normlab.surgery.fold, which makes a bias"

    def check(self, model: nn.Module, pairs: dict[str, str], flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            activation, identity = (model.get_submodule(path) for path in (link.target, link.source))
            source = pairs.get(link.source)
            if source is None or type(identity) is not nn.Identity or not isinstance(activation, ACTIVATIONS):
                continue
            layer = model.get_submodule(source)
            if isinstance(layer, Affine) and layer.bias is None:
                yield source, f"has no bias, and {link.source}, an identity, stands between it and {link.target}"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), _bias)


def _bias(model: nn.Module, path: str) -> Mended:
    layer = model.get_submodule(path)
    zeros = layer.get_parameter("weight").new_zeros(channels_of(layer)[1])
    layer.register_parameter("bias", nn.Parameter(zeros))
    return "a bias of zeros, for an optimizer to be built anew", lambda: layer.register_parameter("bias", None)

"""NL107."""

from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule
from normlab.surgery.flow import Affine

RESCALING = (parametrizations._WeightNorm, parametrizations._SpectralNorm, WeightNorm, SpectralNorm)
"""Torch's parametrizations that set the scale of a weight, and the hooks that did so before."""


class UndoneReparametrization(Rule):
    """Weight norm and spectral norm set the scale of a layer's weight. A batch norm behind the layer divides by the
    standard deviation of its output, and so by whatever scale the weight has: BN(aWx) = BN(Wx). In training the
    reparametrization costs time, and bounds or learns nothing.
    """

    id = "NL107"
    severity = "note"
    title = "a scale of the weight that the batch norm behind it takes off again"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.3: BN(aWu) = BN(Wu)"
    remedy = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), or no batch norm there"

    def check(self, model: nn.Module, pairs: dict[str, str], averaging_norms: dict[str, Norm]) -> Iterator[Found]:
        for path in averaging_norms:
            source = pairs.get(path)
            if source is None or not isinstance(layer := model.get_submodule(source), Affine):
                continue
            makers: list[object] = [*layer._forward_pre_hooks.values()]
            if is_parametrized(layer, "weight"):
                makers += layer.get_submodule("parametrizations.weight").children()
            for each in makers:
                if isinstance(each, RESCALING):
                    yield source, f"its {type(each).__name__.strip('_')} sets a scale that {path} takes off again"

"""NL107."""

import copy
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrizations, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from normlab.measure.norms import Norm
from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.find import parents, put
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

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(dict.fromkeys(paths)), _plain)


def _plain(model: nn.Module, path: str) -> Mended:
    """A copy of the layer whose weight is what it was scaled to."""
    layer, places = model.get_submodule(path), parents(model, path)
    # What a hook of torch's computed last has a history, with which it is not copied.
    computed = {id(value): value.detach().clone() for value in vars(layer).values() if isinstance(value, Tensor)}
    plain = copy.deepcopy(layer, computed)
    if is_parametrized(plain, "weight"):
        remove_parametrizations(plain, "weight")
    for hook in list(plain._forward_pre_hooks.values()):
        if isinstance(hook, SpectralNorm):
            remove_spectral_norm(plain)
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(plain)
    put(plain, places)
    return "a plain weight, for an optimizer to be built anew", lambda: put(layer, places)

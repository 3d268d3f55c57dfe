"""NL501."""

import math
from collections.abc import Iterator

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule

FEWEST = {"layer": 3, "rms": 2}
"""Of one value x, (x - mean) / deviation is 0 and x / rms is 1 or -1; of two, the former is 1 and -1."""


class FewFeatures(Rule):
    """A layer norm over a single feature takes off the feature itself and leaves its bias; over two it leaves 1 and
    -1 in their order; an RMS norm over one leaves its sign. All else that the layer was told is lost. It is usually
    the last dimension of an input that was meant to have its channels there.
    """

    id = "NL501"
    severity = "error"
    title = "a norm over too few features to leave anything of them"
    source = "Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 3: statistics over all units of a layer"
    remedy = "normalize over the dimension that holds the features, or leave the norm out"

    def check(self, example_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in example_norms.items():
            if not isinstance(norm.module, nn.LayerNorm | nn.RMSNorm):
                continue
            features, fewest = math.prod(norm.module.normalized_shape), FEWEST[norm.family]
            if features < fewest:
                kept = "its bias" if (norm.family, features) == ("layer", 1) else "signs"
                yield path, f"normalizes over {features} value(s), which leaves {kept}; expected {fewest} or more"

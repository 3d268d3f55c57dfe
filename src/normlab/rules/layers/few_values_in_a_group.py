"""NL502."""

import math
from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.passes import Use
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust

FEWEST = 3
"""One value less its mean is 0, two values become 1 and -1."""


class FewValuesInAGroup(Rule):
    """A group norm takes its statistics over the channels of a group and all positions. Behind a linear layer or a
    global pooling there is one position, and with as many groups as channels one value: less its mean it is 0, and
    the layer gives its bias whatever comes in. Two values become 1 and -1. Converting batch norms to group norms one
    to one makes such layers.
    """

    id = "NL502"
    severity = "error"
    title = "a group norm with one or two values in a group"
    source = "Opacus issue 567; Wu & He 2018, arXiv 1803.08494, section 3"
    remedy = "fewer groups: normlab.surgery.adjust((PATH,), {'num_groups': 1}), which is layer normalization"

    def check(self, example_norm_uses: dict[str, Use]) -> Iterator[Found]:
        for path, use in example_norm_uses.items():
            norm = use.module
            if use.input is None or not isinstance(norm, nn.GroupNorm):
                continue
            values = norm.num_channels // norm.num_groups * math.prod(use.input.shape[2:])
            if values < FEWEST:
                kept = "its bias" if values == 1 else "signs"
                told = f"{norm.num_channels} channels in {norm.num_groups} groups, of an input {use.input.shape}"
                yield path, f"{told}: {values} value(s) in a group, which leaves {kept}; expected {FEWEST} or more"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return adjust(tuple(paths), {"num_groups": 1})

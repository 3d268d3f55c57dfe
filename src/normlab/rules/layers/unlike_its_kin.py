"""NL507."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from torch import Tensor

from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule

KIN = 3
"""That agree, at least, before the one that does not is an exception."""


class UnlikeItsKin(Rule):
    """The blocks of a stack are made by the same code, and the norm at the same place of each has the same settings.
    Where one alone differs, it was most likely replaced or rebuilt, and took a default: with weights that were
    trained otherwise it computes something else than they expect.
    """

    id = "NL507"
    severity = "warning"
    title = "a norm set otherwise than all others at its place in the stack"
    source = "torch.nn.LayerNorm has eps 1e-5, transformers' models 1e-5, 1e-6 or 1e-12 by their configuration"
    remedy = "give it what the others have: normlab.surgery.adjust((PATH,), {'eps': ...})"

    def check(self, example_norms: dict[str, Norm]) -> Iterator[Found]:
        stacks: dict[tuple[str, type], list[Norm]] = defaultdict(list)
        for path, norm in example_norms.items():
            stacks[re.sub(r"\d+", "*", path), type(norm.module)].append(norm)
        for (place, _), kin in stacks.items():
            for name in ("eps", "weight", "bias"):
                values = [_setting(norm, name) for norm in kin]
                counted = Counter(values).most_common()
                if len(counted) == 2 and counted[1][1] == 1 and counted[0][1] >= KIN:
                    (usual, others), (odd, _) = counted
                    found = kin[values.index(odd)].path
                    yield found, f"{name} {odd}, where the {others} others at {place} have {usual}"


def _setting(norm: Norm, name: str) -> object:
    """A number as it is; of a tensor whether there is one."""
    value = getattr(norm, name)
    return "given" if isinstance(value, Tensor) else value

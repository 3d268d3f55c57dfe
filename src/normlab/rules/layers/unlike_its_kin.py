"""NL507."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from normlab.measure.norms import Norm
from normlab.rules.mending import Mended, changed, eps
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery

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
        for path, (name, odd, usual, others, place) in _odd_ones(example_norms):
            yield path, f"{name} {odd}, where the {others} others at {place} have {usual}"

    def mend(self, paths: Sequence[str], example_norms: dict[str, Norm]) -> Surgery:
        usual = {path: usual for path, (name, _, usual, _, _) in _odd_ones(example_norms) if name == "eps"}

        def like_its_kin(model: nn.Module, path: str) -> Mended:
            value = usual.get(path)
            if not isinstance(value, float):
                return "whether it has a weight and a bias is for the code to say that makes it"
            return eps(value)(model, path)

        return changed(tuple(paths), like_its_kin)


def _odd_ones(example_norms: dict[str, Norm]) -> Iterator[tuple[str, tuple[str, object, object, int, str]]]:
    """Path of a norm, and the setting in which it differs: its name, its value, the usual one, how many norms have
    that, and their place in the stack.
    """
    stacks: dict[tuple[str, type], list[Norm]] = defaultdict(list)
    for path, norm in example_norms.items():
        stacks[re.sub(r"\d+", "*", path), type(norm.module)].append(norm)
    for (place, _), kin in stacks.items():
        for name in ("eps", "weight", "bias"):
            values = [_setting(norm, name) for norm in kin]
            counted = Counter(values).most_common()
            if len(counted) == 2 and counted[1][1] == 1 and counted[0][1] >= KIN:
                (usual, others), (odd, _) = counted
                yield kin[values.index(odd)].path, (name, odd, usual, others, place)


def _setting(norm: Norm, name: str) -> object:
    """A number as it is; of a tensor whether there is one."""
    value = getattr(norm, name)
    return "given" if isinstance(value, Tensor) else value

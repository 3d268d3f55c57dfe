"""NL404."""

from collections.abc import Iterator

from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.facts import Unknown
from normlab.rules.rule import Found, Rule


class NoGradient(Rule):
    """This norm ran in training and no gradient of any output came back to it, although its parameters ask for one:
    its output is detached on the way, computed under no_grad, or used by nothing. It and all before it do not learn
    from here, and its running statistics move all the same.
    """

    id = "NL404"
    severity = "warning"
    title = "no gradient comes back to a norm"
    source = "torch.Tensor.detach; torch.no_grad"
    remedy = "look for detach(), .data, no_grad() or an unused branch behind it; freeze what is not to be trained"

    def check(self, backward: Pass, norms: dict[str, Norm]) -> Iterator[Found]:
        reached = {use.path for use in backward.uses if use.gradient is not None}
        if not reached:
            raise Unknown("no gradient comes back to any layer")
        for path in dict.fromkeys(use.path for use in backward.uses):
            if path not in norms or path in reached:
                continue
            held = [each for each in (norms[path].weight, norms[path].bias) if each is not None]
            if any(each.requires_grad for each in held):
                yield path, f"it ran {len(backward.of(path))} time(s) in training, and no gradient came back"

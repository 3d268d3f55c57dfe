"""NL104."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.mending import Mended, changed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.find import parents, put

PER_CHANNEL = ("batch", "instance")
"""Families that give every channel its own mean and variance, so that one undoes or finds done what another did."""


class NormAfterNorm(Rule):
    """A norm that gives every channel mean 0 and variance 1 has nothing left to do right behind another one: it
    only takes off the first one's gamma and beta again. What it costs is a pass over the activations and parameters
    that get no gradient. Often a layer that stood between the two was taken out, or replaced by an identity.
    """

    id = "NL104"
    severity = "note"
    title = "two norms of each channel in a row"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3: normalization undoes any scale and shift before it"
    remedy = "leave out one of the two: put nn.Identity() in its place"
    recalibrates = True

    def check(self, model: nn.Module, pairs: dict[str, str], norms: dict[str, Norm]) -> Iterator[Found]:
        plain = {
            path: norm
            for path, norm in norms.items()
            # One that holds an activation, as some libraries', does more than normalize.
            if norm.family in PER_CHANNEL and not any(norm.module.children())
        }
        for path in plain:
            if (source := _before(model, pairs, path)) in plain:
                kinds = [type(plain[each].module).__name__ for each in (path, source)]
                yield path, f"a {kinds[0]} right behind {source}, a {kinds[1]}"

    def mend(self, paths: Sequence[str], pairs: dict[str, str], norms: dict[str, Norm]) -> Surgery:
        def leave_out(model: nn.Module, path: str) -> Mended:
            """The first of the two, of which nothing is left behind the second."""
            source = _before(model, pairs, path)
            assert source is not None
            first, second = norms[source], norms[path]
            if (first.family, second.family) == ("instance", "batch"):
                return f"it does not do again what {source} did for each example: leave out either"
            if first.weight is not None and not bool((first.weight > 0).all()):
                return f"gamma of {source} turns channels around, or off: leave out either"
            places = parents(model, source)
            put(nn.Identity().train(first.module.training), places)
            return f"{source}, in front of it, is an identity", lambda: put(first.module, places)

        return changed(tuple(paths), leave_out)


def _before(model: nn.Module, pairs: dict[str, str], path: str) -> str | None:
    """What feeds the norm at a path, but for identities."""
    source = pairs.get(path)
    while source is not None and isinstance(model.get_submodule(source), nn.Identity):
        source = pairs.get(source)
    return source

"""NL104."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule

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

    def check(self, model: nn.Module, pairs: dict[str, str], norms: dict[str, Norm]) -> Iterator[Found]:
        plain = {
            path: norm
            for path, norm in norms.items()
            # One that holds an activation, as some libraries', does more than normalize.
            if norm.family in PER_CHANNEL and not any(norm.module.children())
        }
        for path in plain:
            source = pairs.get(path)
            while source is not None and isinstance(model.get_submodule(source), nn.Identity):
                source = pairs.get(source)
            if source in plain:
                kinds = [type(plain[each].module).__name__ for each in (path, source)]
                yield path, f"a {kinds[0]} right behind {source}, a {kinds[1]}"

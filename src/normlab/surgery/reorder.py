"""reorder: exchange neighbours of two kinds: norm and activation, dropout and norm, dropout and activation."""

import functools

from torch import nn

from normlab.errors import choose
from normlab.surgery.changes import Changes
from normlab.surgery.find import BatchNorm, parents, put
from normlab.surgery.flow import links
from normlab.surgery.options import with_options

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "norm": (BatchNorm,),
    "activation": (nn.Sigmoid, nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Softplus),
    "dropout": (nn.modules.dropout._DropoutNd,),
}


@with_options
class reorder:
    """Where a `first` feeds a `second`, and it alone, let the `second` come first: reorder("norm", "activation").

    Kinds are "norm", "activation" and "dropout". The two modules change places, and with them their names.

    Raises NormlabError on another kind.
    """

    first: str
    second: str

    def __post_init__(self) -> None:
        choose(KINDS, self.first, "kind of layer")
        choose(KINDS, self.second, "kind of layer")

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        moved: set[str] = set()
        for link in list(links(model)):
            one, two = model.get_submodule(link.source), model.get_submodule(link.target)
            if not isinstance(one, KINDS[self.first]) or not isinstance(two, KINDS[self.second]):
                continue
            if link.shared:
                changes.left[link.source] = link.shared
            elif not moved & {link.source, link.target}:
                moved |= {link.source, link.target}
                places = parents(model, link.source), parents(model, link.target)
                _place(two, one, *places)
                changes.record(
                    link.source,
                    f"changed places with {link.target}",
                    functools.partial(_place, one, two, *places),
                )
        return changes


def _place(one: nn.Module, two: nn.Module, *places: list[tuple[nn.Module, str]]) -> None:
    put(one, places[0])
    put(two, places[1])

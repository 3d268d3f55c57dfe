"""unshare: running statistics of its own for every place at which a model holds the same norm."""

import copy
import functools

from torch import nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.find import keeps_statistics, parents, put
from normlab.surgery.options import with_options


@with_options
class unshare:
    """Put a norm of its own at every place where a model holds one and the same norm: that at each of `paths`.

    Gamma and beta stay shared, the same parameters, so that training, and an optimizer that knows them, go on as
    before. Each place gets statistics, which begin with what there was: `recalibrate` makes them fit. `left` names
    norms that are held once, of which several calls can be told apart by the code alone that calls them, and what
    keeps no statistics.

    Raises NormlabError on a path that the model does not have. The model is then as before.
    """

    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(self.paths))  # from JSON it comes as a list

    def __call__(self, model: nn.Module) -> Changes:
        modules = dict(model.named_modules(remove_duplicate=False))
        if unknown := [path for path in self.paths if path not in modules]:
            raise NormlabError("the path of a module", repr(unknown[0]))
        changes = Changes()
        for path in self.paths:
            norm, places = modules[path], parents(model, path)
            if not keeps_statistics(norm):
                changes.left[path] = "keeps no running statistics"
            elif len(places) == 1:
                changes.left[path] = "is held at one place: the code that calls it several times needs several"
            else:
                for place in places[1:]:
                    put(_twin(norm), [place])
                told = f"a norm of its own at each of {len(places)} places"
                changes.record(path, told, functools.partial(put, norm, places))
        return changes


def _twin(norm: nn.Module) -> nn.Module:
    """A copy with buffers of its own, and the norm's parameters."""
    return copy.deepcopy(norm, {id(parameter): parameter for parameter in norm.parameters()})

"""dropout: set its probability everywhere, or put it where there is none."""

import functools

from torch import nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.find import parents, put
from normlab.surgery.flow import links
from normlab.surgery.options import with_options
from normlab.surgery.reorder import KINDS


@with_options
class dropout:
    """Give every dropout layer the probability `p`; in a model without any, put one behind every activation that
    a linear layer (or its norm) feeds, where LeNet and AlexNet have theirs (Srivastava et al. 2014).

    Raises NormlabError for p outside [0, 1).
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise NormlabError("a dropout probability in [0, 1)", self.p)

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, layer in model.named_modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd):
                changes.record(path, f"p {layer.p} -> {self.p}", functools.partial(setattr, layer, "p", layer.p))
                layer.p = self.p
        if not changes and self.p:
            self._insert(model, changes)
        return changes

    def _insert(self, model: nn.Module, changes: Changes) -> None:
        feeds = {link.target: link for link in links(model)}
        for path, link in feeds.items():
            activation = model.get_submodule(path)
            if not isinstance(activation, KINDS["activation"]):
                continue
            source = link.source
            # A norm stands between, or the identity that `swap` and `keep` leave in its place.
            while isinstance(model.get_submodule(source), (*KINDS["norm"], nn.Identity)) and source in feeds:
                source = feeds[source].source
            if not isinstance(model.get_submodule(source), nn.Linear):
                changes.left[path] = "follows no linear layer"
            elif link.shared:
                changes.left[path] = link.shared
            else:
                places = parents(model, path)
                put(nn.Sequential(activation, nn.Dropout(self.p)).train(activation.training), places)
                undo = functools.partial(put, activation, places)
                changes.record(path, f"followed by Dropout(p={self.p})", undo)

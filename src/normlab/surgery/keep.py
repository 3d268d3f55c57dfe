"""keep: leave out all norms but some, the question of placement."""

import dataclasses
import functools

from torch import nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.find import batch_norms, parents, put


@dataclasses.dataclass(frozen=True)
class keep:
    """Replace every batch norm by the identity but those at `positions`, counted from 0 in order of registration,
    or whose path is in `paths`.

    Raises NormlabError on a position or a path that the model does not have. The model is then as before.
    """

    positions: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # From JSON they come as lists; frozen and hashable they stay tuples.
        object.__setattr__(self, "positions", tuple(self.positions))
        object.__setattr__(self, "paths", tuple(self.paths))

    def __call__(self, model: nn.Module) -> Changes:
        norms = batch_norms(model)
        if wrong := [position for position in self.positions if not 0 <= position < len(norms)]:
            raise NormlabError(f"positions below {len(norms)}, the number of batch norms", wrong)
        if wrong_paths := [path for path in self.paths if path not in norms]:
            raise NormlabError("paths of batch norms", wrong_paths, f"there are {', '.join(norms) or 'none'}")
        stay = {*self.paths, *(path for position, path in enumerate(norms) if position in self.positions)}
        places = {path: parents(model, path) for path in norms if path not in stay}
        changes = Changes(left=dict.fromkeys(sorted(stay), "kept"))
        for path, holders in places.items():
            identity = nn.Identity().train(norms[path].training)
            put(identity, holders)
            changes.record(path, f"{norms[path]} -> Identity()", functools.partial(put, norms[path], holders))
        return changes

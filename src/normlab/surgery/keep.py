"""keep: leave out all norms but some, the question of placement."""

import functools

from torch import nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.find import batch_norms, parents, put
from normlab.surgery.options import with_options


@with_options
class keep:
    """Replace every batch norm by the identity but those at `positions`, counted from 0 in order of registration,
    those whose path is in `paths`, and those of `stages`: the norms in order divided into `of` runs as equal as
    can be, so that the question of placement can be asked of any number of norms.

    Raises NormlabError on a position, a path or a stage that the model does not have. The model is then as before.
    """

    positions: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()
    of: int = 1

    def __post_init__(self) -> None:
        # From JSON they come as lists; frozen and hashable they stay tuples.
        for name in ("positions", "paths", "stages"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if wrong := [stage for stage in self.stages if not 0 <= stage < self.of]:
            raise NormlabError(f"stages below {self.of}, their number", wrong)

    def __call__(self, model: nn.Module) -> Changes:
        norms = batch_norms(model)
        if wrong := [position for position in self.positions if not 0 <= position < len(norms)]:
            raise NormlabError(f"positions below {len(norms)}, the number of batch norms", wrong)
        if wrong_paths := [path for path in self.paths if path not in norms]:
            raise NormlabError("paths of batch norms", wrong_paths, f"there are {', '.join(norms) or 'none'}")
        if self.stages and len(norms) < self.of:
            raise NormlabError(f"at least {self.of} batch norms, one a stage", len(norms))
        stay = {
            path
            for position, path in enumerate(norms)
            if path in self.paths or position in self.positions or position * self.of // len(norms) in self.stages
        }
        places = {path: parents(model, path) for path in norms if path not in stay}
        changes = Changes(left=dict.fromkeys(sorted(stay), "kept"))
        for path, holders in places.items():
            identity = nn.Identity().train(norms[path].training)
            put(identity, holders)
            changes.record(path, f"{norms[path]} -> Identity()", functools.partial(put, norms[path], holders))
        return changes

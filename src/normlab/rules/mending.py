"""at: a surgery at some places of a model alone."""

import dataclasses
from collections.abc import Callable

from torch import nn

from normlab.surgery import Changes, Surgery


@dataclasses.dataclass(frozen=True)
class at:
    """Do at each of `paths` the surgery that `surgery` makes for the module there, and nowhere else.

    On an error the model is as before.
    """

    paths: tuple[str, ...]
    surgery: Callable[[nn.Module], Surgery]

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        try:
            for path in self.paths:
                module = model.get_submodule(path)
                done = self.surgery(module)(module)
                changes._undo.append(done.undo)
                changes.done |= {f"{path}.{inside}".strip("."): what for inside, what in done.done.items()}
                changes.left |= {f"{path}.{inside}".strip("."): why for inside, why in done.left.items()}
        except BaseException:
            changes.undo()
            raise
        return changes

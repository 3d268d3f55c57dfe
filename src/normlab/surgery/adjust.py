"""adjust: other settings (eps, momentum ...) for some of a model's layers."""

import functools
from typing import Any

from torch import nn

from normlab.errors import NormlabError
from normlab.norms.running import check_settings
from normlab.surgery.changes import Changes
from normlab.surgery.options import with_options


@with_options
class adjust:
    """Set attributes of the layers at `paths` that they have already: adjust(("bn1",), {"momentum": 0.1}).

    Raises NormlabError on a path or an attribute that the model does not have, an eps below 0 and a momentum outside
    [0, 1]. The model is then as before.
    """

    paths: tuple[str, ...]
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(self.paths))  # from JSON it comes as a list
        check_settings(self.settings.get("eps", 0.0), self.settings.get("momentum"))

    def __call__(self, model: nn.Module) -> Changes:
        modules = dict(model.named_modules())
        for path in self.paths:
            if path not in modules:
                raise NormlabError("the path of a module", repr(path))
            if missing := [name for name in self.settings if not hasattr(modules[path], name)]:
                raise NormlabError(f"settings that {path or 'the model'} has", ", ".join(missing))
        changes = Changes()
        for path in self.paths:
            before = {name: getattr(modules[path], name) for name in self.settings}
            if before == self.settings:
                changes.left[path] = "is set so already"
                continue
            _set(modules[path], self.settings)
            said = ", ".join(f"{name} {before[name]} -> {value}" for name, value in self.settings.items())
            changes.record(path, said, functools.partial(_set, modules[path], before))
        return changes


def _set(module: nn.Module, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        setattr(module, name, value)

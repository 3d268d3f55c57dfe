"""One forward and one backward pass, in which what every layer gives, and its gradient, is kept."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from normlab.measure.asking import Loss, asking
from normlab.measure.layers import layers


@dataclasses.dataclass
class Passed:
    """What one use of a layer gave."""

    name: str
    """The layer's path; of a second use `path (2)`."""
    layer: nn.Module
    """The copy's: to be asked about its settings."""
    output: Tensor
    """(N, ...), as it was before a later layer worked on it in place."""
    gradient: Tensor | None = None
    """Of the loss with respect to it; None where it does not reach the loss."""


def forward_backward(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, kinds: str | Sequence[str]) -> list[Passed]:
    """Every layer of these `kinds`, once for each use, in order of execution; the model stays as it is.

    Its modes are those that it is in. Layers that give anything but one tensor are left out.

    Raises NormlabError as `layers` does.
    """
    found: list[Passed] = []
    uses: Counter[str] = Counter()

    def hook(path: str) -> Callable[..., None]:
        def keep(layer: nn.Module, _: object, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return
            uses[path] += 1
            passed = Passed(f"{path} ({uses[path]})" if uses[path] > 1 else path, layer, output.detach().clone())
            found.append(passed)
            if output.requires_grad:
                output.register_hook(lambda gradient: setattr(passed, "gradient", gradient.detach().clone()))

        return keep

    with asking(model) as copy:
        for path, layer in layers(copy, kinds).items():
            layer.register_forward_hook(hook(path))
        loss(copy(x), y).backward()
    return found

"""stretch: longer or shorter weights before batch norms, which is another learning rate for them alone."""

import functools

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.flow import fed_by
from normlab.surgery.options import with_options


@with_options
class stretch:
    """Multiply the weight of every layer that a batch norm follows directly, and its bias, by `factor`.

    At eps = 0 the function stays as it was, and gradient descent moves the direction of these weights as a rate of
    1 / factor^2 times as much would: Arora, Li & Lyu 2019, arXiv 1812.03981, section 2; all other parameters keep
    theirs. With eps > 0 both hold as far as the variance before the norm is large beside it.

    Raises NormlabError for a factor that is not a positive number.
    """

    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < float("inf"):
            raise NormlabError("a factor above 0", self.factor)

    def __call__(self, model: nn.Module) -> Changes:
        layers, left = fed_by(model)
        changes = Changes(left=left)
        for path in layers.values():
            for name, parameter in model.get_submodule(path).named_parameters(recurse=False):
                before = parameter.detach().clone()
                _write(parameter, before * self.factor)
                changes.record(
                    f"{path}.{name}", f"times {self.factor:g}", functools.partial(_write, parameter, before)
                )
        return changes


def _write(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)

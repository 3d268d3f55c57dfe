"""in_float32: norms that take half precision and give it, and compute in float32 between the two."""

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.surgery.changes import Changes
from normlab.surgery.options import with_options
from normlab.surgery.overlay import lay_over

HALVES = (torch.float16, torch.bfloat16)


@with_options
class in_float32:
    """Let the layers at `paths` compute in float32 where they are given half precision, and give it back.

    Sums of squares do not overflow then, eps is not rounded to 0, and the result is rounded once: Micikevicius et al.
    2018, arXiv 1710.03740, section 3.3. The layers stay the same objects, with their parameters as they are. Costs a
    copy of the input in float32 for each call. For layers of one tensor that are written in plain torch operations,
    as models write their own; torch's and ours compute so already.

    Raises NormlabError on a path that the model does not have. The model is then as before.
    """

    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(self.paths))  # from JSON it comes as a list

    def __call__(self, model: nn.Module) -> Changes:
        modules = dict(model.named_modules())
        if unknown := [path for path in self.paths if path not in modules]:
            raise NormlabError("the path of a module", repr(unknown[0]))
        changes = Changes()
        for path in self.paths:
            if isinstance(modules[path], InFloat32):
                changes.left[path] = "computes in float32 already"
            else:
                changes.record(path, "computes in float32", lay_over(modules[path], InFloat32))
        return changes


class InFloat32(nn.Module):
    """A layer of one tensor that computes in float32 or float64, and gives the dtype that it was given."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's own, of the input in float32."""
        if input.dtype not in HALVES:
            return super().forward(input)
        return super().forward(input.float()).to(input.dtype)

"""NL515."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from normlab.measure.half_precision import HALVES
from normlab.measure.passes import Use
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, in_float32


class HalfPromoted(Rule):
    """Where the weight of a norm is float32 and the cast to half precision comes before the product with it, the
    product is float32, and so is all that follows until something casts: twice the memory, matrix products at the
    speed of float32, or an error where two dtypes meet. (Under autocast, where all weights are float32, that is as
    it should be.)
    """

    id = "NL515"
    severity = "note"
    title = "a norm that turns half precision into float32"
    source = "transformers issue 33133; torch.result_type, on promotion"
    remedy = "keep its weight in the model's dtype, or cast what the layer gives: y.to(x.dtype)"

    def check(self, model: nn.Module, example_norm_uses: dict[str, Use]) -> Iterator[Found]:
        counted = [(each.dtype in HALVES, each.numel()) for each in model.parameters()]
        if 2 * sum(size for half, size in counted if half) <= sum(size for _, size in counted):
            return
        for path, use in example_norm_uses.items():
            x, y = use.input, use.output
            if x is not None and y is not None and x.dtype in HALVES and y.dtype == torch.float32:
                yield (
                    path,
                    f"{x.dtype} comes in and {y.dtype} goes out of it; expected {x.dtype}".replace("torch.", ""),
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return in_float32(tuple(paths))

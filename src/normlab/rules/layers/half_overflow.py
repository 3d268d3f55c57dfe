"""NL513."""

from collections.abc import Iterator, Sequence

import torch

from normlab.measure.half_precision import LARGE, HalfPrecision
from normlab.measure.passes import Use
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, in_float32


class HalfOverflow(Rule):
    """The largest float16 is 65504, so that the square of anything above 255 is infinite. A norm that squares in
    float16 then divides by infinity: the whole example becomes zeros, and no error, no NaN tells. Trained
    transformers have single activations of some hundreds or thousands in their residual stream, though a new one has
    not. bfloat16 has the range, and float32 inside the layer has it too.
    """

    id = "NL513"
    severity = "warning"
    title = "a norm whose squares overflow in half precision"
    source = "transformers issue 33133; Sun et al. 2024, arXiv 2402.17762, section 2, on how large activations are"
    remedy = "take the statistics in float32 inside the layer: x.float(); or torch.nn.RMSNorm and LayerNorm, which do"

    def check(self, half_norms: dict[str, HalfPrecision], example_norm_uses: dict[str, Use]) -> Iterator[Found]:
        for path, half in half_norms.items():
            x = example_norm_uses[path].input
            limit = torch.finfo(half.dtype).max ** 0.5
            if limit < LARGE and not half.survives_large and x is not None:
                told = f"asked with values up to {LARGE:g}, it gives something else than in float64"
                yield (
                    path,
                    f"{told}: squares overflow above {limit:.0f}; the largest of this batch is {x.largest:.3g}",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return in_float32(tuple(paths))

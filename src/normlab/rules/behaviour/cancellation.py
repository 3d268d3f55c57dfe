"""NL311."""

from collections.abc import Iterator

import torch

from normlab.measure.merged import Moments
from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule

LARGE = 1e3
"""|mean| / standard deviation. In float32 the output is then off by about 1e-4, and 100 times that where a kernel
computes E[x^2] - E[x]^2; ordinary layers are below 100.
"""


class Cancellation(Rule):
    """Batch norm takes the mean off. Where it is a thousand times the standard deviation, the digits that tell the
    examples apart are the last ones of a float32, and most are lost before the norm gets them; kernels that compute
    the variance as E[x^2] - E[x]^2 can even make it negative.
    """

    id = "NL311"
    severity = "warning"
    title = "a mean so large that the digits of the variance are lost"
    source = "Chan, Golub & LeVeque 1983, section 1; github.com/pytorch/pytorch/issues/5410"
    remedy = "center the input of the network, or remove a large constant bias before this norm"

    def check(self, batch_inputs: dict[str, Moments], batch_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, batch in batch_inputs.items():
            # Deviations below eps come out near 0 whatever their digits are.
            matters = batch.var > max(batch_norms[path].eps or 0.0, torch.finfo(batch.dtype).tiny)
            ratios = batch.mean.abs()[matters] / batch.var[matters].sqrt()
            if batch.dtype == torch.float32 and len(ratios) and (ratio := ratios.max().item()) > LARGE:
                yield (
                    path,
                    f"the mean of a channel is {ratio:.3g} times its standard deviation; below {LARGE:g} is expected",
                )

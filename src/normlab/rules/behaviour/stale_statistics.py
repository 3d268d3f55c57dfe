"""NL304."""

from collections.abc import Iterator

from normlab.measure.merged import Moments
from normlab.measure.norms import Norm
from normlab.measure.running import remembered, untrained
from normlab.rules.behaviour.young_statistics import YOUNG
from normlab.rules.rule import Found, Rule
from normlab.surgery.find import BatchNorm

MOST = 3.0, 8.0
"""Standard deviations of the batch, and factor of them. Noise in place of digits stays within 0.5 and 2.9 in a
trained ResNet-8.
"""
MOST_REAL = 0.5, 1.5
"""Likewise for real data under evaluation. Trained LeNets, MLPs, a ResNet-8 and an Inception stay within 0.38 and
1.17 of 32 to 256 images; at a rate at which the running statistics lag, 3, a LeNet is at 0.67 and 1.5.
"""
ENOUGH = 8
"""Values per channel, below which a batch does not tell."""


class StaleStatistics(Rule):
    """Evaluation normalizes by the running statistics. Where these are far from those of the batches, the layers
    behind see in evaluation what they never saw in training, and a model that is good in train() is bad in eval().
    They lag where the weights moved since (finetuning with frozen averages, a late jump of the learning rate,
    weights that were averaged, pruned or quantized), and where the data is another. If the batch is not of the kind
    that the model was trained on, random numbers for instance, this is no matter. Where it is known to be
    (`real=True`, `--data`) the statistics are held to what evaluation feeds each norm, and closely: layers that are
    off by two each are harmless one by one, and ruin a network of four.
    """

    id = "NL304"
    severity = "warning"
    title = "running statistics far from those of the batch"
    source = "Wu & Johnson 2021, arXiv 2105.07576, section 3; github.com/pytorch/pytorch/issues/5406"
    remedy = "normlab.surgery.recalibrate(model, batches) recomputes them from training data"
    study = "averages"
    recalibrates = True

    def check(
        self,
        batch_inputs: dict[str, Moments],
        evaluation_inputs: dict[str, Moments],
        batch_norms: dict[str, Norm],
        real: bool,
    ) -> Iterator[Found]:
        most_shift, most_scale = MOST_REAL if real else MOST
        for path, batch in (evaluation_inputs if real else batch_inputs).items():
            norm = batch_norms[path].module
            assert isinstance(norm, BatchNorm)
            if norm.running_mean is None or norm.running_var is None or batch.values < ENOUGH:
                continue
            if untrained(norm) or remembered(norm) > YOUNG:
                continue
            mean, var = norm.running_mean.double().cpu(), norm.running_var.double().cpu()
            shift = ((batch.mean - mean).abs() / (batch.var + norm.eps).sqrt()).median().item()
            scale = ((batch.var + norm.eps) / (var + norm.eps)).sqrt().log().median().exp().item()
            if shift > most_shift or not 1 / most_scale < scale < most_scale:
                yield (
                    path,
                    f"in the median channel evaluation is off by {shift:.3g} standard deviations and scales by "
                    f"{scale:.3g}, where about 0 and 1 are expected",
                )

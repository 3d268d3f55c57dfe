"""NL212."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule
from normlab.surgery.find import is_shapeless


class NewStatistics(Rule):
    """The parameters of the norm were trained, but its running statistics are those of a new layer, mean 0 and
    variance 1: buffers were left out where the weights were saved, averaged (EMA, SWA) or loaded with strict=False.
    The model evaluates as if it had never been trained with this norm. (Asked of models under evaluation alone.)
    """

    id = "NL212"
    severity = "error"
    title = "trained parameters beside the running statistics of a new layer"
    source = "github.com/huggingface/pytorch-image-models/issues/102; torch.optim.swa_utils.update_bn"
    remedy = (
        "load the buffers too (strict=True says what is missing), or normlab.surgery.recalibrate on training data"
    )
    recalibrates = True

    def check(self, model: nn.Module, averaging_norms: dict[str, Norm]) -> Iterator[Found]:
        if model.training:  # and perhaps just made: some networks draw gamma and beta at random
            return
        for path, norm in averaging_norms.items():
            held = dict(norm.module.named_buffers(recurse=False))
            mean, var, beta = held.get("running_mean"), held.get("running_var"), norm.bias
            if mean is None or var is None or beta is None or beta.is_meta or is_shapeless(norm.module):
                continue
            # More networks draw gamma at random than beta; one that differs by channel was learned.
            if not mean.any() and bool((var == 1).all()) and bool((beta != beta[0]).any()):
                yield (
                    path,
                    f"running_mean is 0 and running_var 1 in all {len(beta)} channels, while beta goes from "
                    f"{beta.min():.3g} to {beta.max():.3g}",
                )

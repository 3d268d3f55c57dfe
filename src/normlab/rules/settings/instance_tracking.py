"""NL210."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust


class InstanceTracking(Rule):
    """Instance norm gives every example its own mean and variance. With track_running_stats=True that holds in
    training alone: evaluation normalizes all of them by one average over the training set, which is another
    function. A generator then gives other images, mostly worse ones, under eval().
    """

    id = "NL210"
    severity = "warning"
    title = "an instance norm with running statistics: evaluation is another function than training"
    source = "github.com/junyanz/pytorch-CycleGAN-and-pix2pix/issues/395; torch.nn.InstanceNorm2d"
    remedy = "track_running_stats=False, the default"

    def check(self, model: nn.Module) -> Iterator[Found]:
        for path, norm in model.named_modules():
            if isinstance(norm, nn.modules.instancenorm._InstanceNorm) and norm.track_running_stats:
                yield (
                    path,
                    "track_running_stats=True: by its own statistics in training, by running ones in evaluation",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return adjust(tuple(paths), {"track_running_stats": False})

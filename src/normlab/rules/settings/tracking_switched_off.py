"""NL209."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust
from normlab.surgery.find import batch_norms


class TrackingSwitchedOff(Rule):
    """track_running_stats=False is for the constructor, which then makes no running statistics. Set on a layer that
    has them, it does not make evaluation use the batch: evaluation goes on with the old statistics, and training no
    longer moves them.
    """

    id = "NL209"
    severity = "error"
    title = "tracking switched off in a norm that keeps running statistics: evaluation still uses the old ones"
    source = "github.com/pytorch/pytorch/issues/37823, 44415; torch.nn.BatchNorm2d.forward"
    remedy = "track_running_stats = True again; for the batch's statistics in evaluation, normlab.surgery.adapt"

    def check(self, model: nn.Module) -> Iterator[Found]:
        for path, norm in batch_norms(model).items():
            if not norm.track_running_stats and norm.running_mean is not None:
                yield path, "track_running_stats is False, but it has running statistics, which evaluation uses"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return adjust(tuple(paths), {"track_running_stats": True})

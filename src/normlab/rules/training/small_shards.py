"""NL406."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.passes import Use
from normlab.norms import synchronized
from normlab.rules.rule import Found, Rule

FEW = 16
"""Examples of a process, below which the error of ResNet-50 rises: 23.7 % at 16, 24.8 at 8, 27.3 at 4, 34.7 at 2."""

SYNCHRONIZED = (nn.SyncBatchNorm, *synchronized.FAMILY["sync"].values())


class SmallShards(Rule):
    """Under data parallelism each process normalizes by the examples of its own share alone, and the running
    statistics kept are those of one of them. However large the batch is in all, batch norm sees the share.
    """

    id = "NL406"
    severity = "warning"
    title = "each process normalizes by a few examples of its own"
    source = "Wu & He 2018, arXiv 1803.08494, table 2; torch.nn.SyncBatchNorm"
    remedy = "normlab.surgery.synchronize()(model) before it is wrapped, or normlab.surgery.swap('batch', 'group')"

    def check(self, model: nn.Module, batch_uses: dict[str, list[Use]]) -> Iterator[Found]:
        for path, module in model.named_modules():
            shards = _shards(module)
            if shards < 2:
                continue
            within = f"{path}.module".lstrip(".")
            seen = [
                use.input.shape[0] // (shards if isinstance(module, nn.DataParallel) else 1)
                for name, uses in batch_uses.items()
                for use in uses
                if use.input and name.startswith(within) and not isinstance(use.module, SYNCHRONIZED)
            ]
            if seen and min(seen) < FEW:
                yield (
                    path,
                    f"the batch norms in it normalize by {min(seen)} examples on each of {shards} devices; "
                    f"at least {FEW} are expected",
                )


def _shards(module: nn.Module) -> int:
    """Into how many parts a wrapper for parallel training cuts a batch; 1 of what is none."""
    if isinstance(module, nn.DataParallel):
        return len(module.device_ids)  # empty where there is no GPU
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.process_group.size()  # each is given its own batch
    return 1

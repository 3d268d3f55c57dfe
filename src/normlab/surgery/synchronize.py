"""synchronize: batch norms that share their statistics with every process of a training."""

from torch import nn

from normlab.surgery.changes import Changes
from normlab.surgery.find import PLAIN, SYNCHRONIZED, batch_norms
from normlab.surgery.options import with_options
from normlab.surgery.swap import exchange


@with_options
class synchronize:
    """Replace every batch norm, torch's and ours, by our synchronized one, which takes over all that `swap` carries
    over. Torch's own synchronized one is replaced too, since it refuses CPUs.

    `left` names the norms over a batch that do something else with it than batch norm (ghost, renorm, ...): each
    process takes their statistics of its own examples.

    Raises NormlabError where the model itself is the norm, and for a lazy norm that has not seen its first batch.
    The model is then as before.
    """

    def __call__(self, model: nn.Module) -> Changes:
        norms = batch_norms(model)
        changes = exchange(model, {path: norm for path, norm in norms.items() if type(norm) in PLAIN}, "sync", {})
        for path, norm in norms.items():
            if type(norm) not in (*PLAIN, *SYNCHRONIZED):
                changes.left[path] = f"{type(norm).__name__} keeps to each process's own examples"
        return changes

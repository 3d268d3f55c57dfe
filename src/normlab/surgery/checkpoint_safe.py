"""checkpoint_safe: running statistics that move once a batch under activation checkpointing.

`torch.utils.checkpoint` keeps no activations of a part of the network and runs its forward again within the
backward: a batch norm in it then counts every batch twice (pytorch#96136).
"""

import torch
from torch import Tensor, nn

from normlab.surgery.changes import Changes
from normlab.surgery.find import is_shapeless, keeps_statistics
from normlab.surgery.options import with_options
from normlab.surgery.overlay import lay_over


@with_options
class checkpoint_safe:
    """Let every norm that keeps running statistics, torch's, ours and what is derived from them, move its buffers in
    no forward that a backward runs: in both kinds of `torch.utils.checkpoint`, reentrant or not, and in whatever
    else recomputes, as reversible networks do.

    Outputs and gradients are as before. (Batch renormalization, whose training output depends on its running
    statistics, recomputes by those that its first forward has moved, as it did.) Under `torch.compile` a checkpoint
    is to be compiled whole: a compiled part inside of one cannot tell who runs it, and moves statistics twice.
    `left` names lazy norms that have not seen their first batch.
    """

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, norm in model.named_modules():
            if not keeps_statistics(norm):
                continue
            if isinstance(norm, CheckpointSafe):
                changes.left[path] = "is safe already"
            elif is_shapeless(norm):
                changes.left[path] = "is lazy and has not seen its first batch: run one through"
            else:
                changes.record(path, "statistics move once a batch", lay_over(norm, CheckpointSafe))
        return changes


class CheckpointSafe(nn.Module):
    """A norm whose buffers no recomputation moves."""

    def forward(self, *arguments: Tensor, **keywords: Tensor) -> Tensor:
        """The norm's own; in a recomputation it works on copies of the buffers, which are dropped."""
        # A compiler's recomputation is its own affair: there buffers are written once, behind the forward.
        if torch.compiler.is_compiling() or not (self.training and _in_backward()):
            return super().forward(*arguments, **keywords)
        kept = dict(self._buffers)
        try:
            self._buffers.update({name: buffer.clone() for name, buffer in kept.items() if buffer is not None})
            return super().forward(*arguments, **keywords)
        finally:
            self._buffers.update(kept)


def _in_backward() -> bool:
    """Whether this thread is at work for a backward pass; torch.utils.module_tracker asks in this way too."""
    return torch._C._current_graph_task_id() != -1

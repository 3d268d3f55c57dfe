"""The functional door onto `norms/`: pure functions that mutate nothing."""

from normlab.norms.batch import batch_norm
from normlab.norms.synchronized import sync_batch_norm

__all__ = ["batch_norm", "sync_batch_norm"]

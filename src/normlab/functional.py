"""The functional door onto `norms/`: pure functions that mutate nothing."""

from normlab.norms.batch import batch_norm
from normlab.norms.cholesky import cholesky
from normlab.norms.newton_schulz import newton_schulz
from normlab.norms.normality import normality_norm
from normlab.norms.pit import gaussian_pit
from normlab.norms.rank_pit import rank_pit
from normlab.norms.whitening import whiten
from normlab.norms.zca import pca, zca

__all__ = [
    "batch_norm",
    "cholesky",
    "gaussian_pit",
    "newton_schulz",
    "normality_norm",
    "pca",
    "rank_pit",
    "whiten",
    "zca",
]

"""The functional door onto `norms/`: pure functions that mutate nothing."""

from normlab.norms.batch import batch_norm
from normlab.norms.cholesky import cholesky
from normlab.norms.frn import filter_response_norm
from normlab.norms.ghost import ghost_batch_norm
from normlab.norms.group import group_norm
from normlab.norms.instance import instance_norm
from normlab.norms.layer import layer_norm
from normlab.norms.mean_only import mean_only_batch_norm
from normlab.norms.newton_schulz import newton_schulz
from normlab.norms.noisy import noisy_batch_norm
from normlab.norms.normality import normality_norm
from normlab.norms.pit import gaussian_pit
from normlab.norms.rank_pit import rank_pit
from normlab.norms.renorm import batch_renorm, renorm_limits
from normlab.norms.rms import rms_norm
from normlab.norms.synchronized import sync_batch_norm
from normlab.norms.tanh import dynamic_tanh
from normlab.norms.variance_only import variance_only_batch_norm
from normlab.norms.weight_standardization import standardize_weight
from normlab.norms.whitening import whiten
from normlab.norms.zca import pca, zca

__all__ = [
    "batch_norm",
    "batch_renorm",
    "cholesky",
    "dynamic_tanh",
    "filter_response_norm",
    "gaussian_pit",
    "ghost_batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "mean_only_batch_norm",
    "newton_schulz",
    "noisy_batch_norm",
    "normality_norm",
    "pca",
    "rank_pit",
    "renorm_limits",
    "rms_norm",
    "standardize_weight",
    "sync_batch_norm",
    "variance_only_batch_norm",
    "whiten",
    "zca",
]

"""What kinds of normalization there are: the closed set of words that laws and layers share.

A layer says its kind as a class attribute, `kind = "batch"`; a law says for which kinds it holds. What a layer
has besides (running statistics, gamma and beta, a mask, `eps` as an option) is seen by looking at it.
"""

from collections.abc import Callable

from torch import Tensor, nn

from normlab.errors import choose

KINDS = {
    "any": "a layer of which nothing more is known; it keeps what every layer must",
    "batch": "mean and variance of each channel over batch and positions; running ones in evaluation",
    "mean-only": "only the mean is subtracted, of each channel over the batch",
    "variance-only": "only divided by the standard deviation of each channel over the batch",
    "ghost": "as batch, over parts of the batch of `ghost_size` examples",
    "renorm": "as batch, corrected towards the running statistics by r and d",
    "noisy": "as batch, then noise that does not depend on the input",
    "frozen": "an affine map of each channel by statistics that never move",
    "layer": "mean and variance of each example over its channels, and its positions if it will",
    "group": "mean and variance of each example over groups of channels, `num_groups` of them, and positions",
    "instance": "mean and variance of each example and channel over its positions",
    "rms": "each example divided by its root mean square over channels, and positions if it will",
    "response": "each example and channel divided by its root mean square over positions",
    "tanh": "each element by itself: gamma tanh(alpha x) + beta",
    "weights": "a layer with num_features channels in and out that standardizes each filter of its own `weight`",
    "zca": "each batch whitened by the inverse square root of its covariance",
    "pca": "each batch turned to the principal axes of its covariance, each scaled to variance 1",
    "cholesky": "each batch whitened by the inverse Cholesky factor of its covariance",
    "newton-schulz": "as zca, the inverse square root by `iterations` steps of Newton and Schulz",
    "uniform": "the Gaussian distribution function of what batch gives: values in (0, 1)",
    "rank": "the rank (r - 1/2) / N of each value in its channel; its gradient is a stand-in",
    "normal": "each channel made as Gaussian as a power transform can, then standardized",
    "noisy-normal": "as normal, then noise whose size is taken for a constant",
    "dropout": "no normalization, but what stands beside one: elements set to 0 at random in training",
}

ALL = frozenset(KINDS)
STANDARDIZED = frozenset({"batch", "layer", "group", "instance"})
DIVIDED_BY_RMS = frozenset({"rms", "response"})
WHITENED = frozenset({"zca", "pca", "cholesky", "newton-schulz"})
STATISTICS_OF_THE_BATCH = (
    frozenset({"batch", "mean-only", "variance-only", "ghost", "renorm", "noisy", "uniform", "rank"})
    | {"normal", "noisy-normal"}
    | WHITENED
)
BY_ITSELF = frozenset({"frozen", "layer", "group", "instance", "rms", "response", "tanh", "weights", "dropout"})
"""Kinds under which an example never sees another one, in training either."""
RANDOM = frozenset({"noisy", "noisy-normal", "dropout"})

OVER_CHANNELS = frozenset({"layer", "rms"})
"""Kinds that may take positions in or not: their laws are asked where there is one position."""


def check_kind(kind: object) -> str:
    """The kind, if it is one; NormlabError with the nearest and all of them if not."""
    choose(KINDS, kind, "kind of normalization")
    return str(kind)


def sets(kind: str, x: Tensor, layer: nn.Module) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The elements of x (N, C, *spatial) that share statistics, as (sets, elements), and the way back to x."""
    shape = x.shape
    if kind in OVER_CHANNELS:
        rows = shape[0]
    elif kind == "group":
        rows = shape[0] * int(layer.num_groups)  # type: ignore[arg-type]
    elif kind in ("instance", "response"):
        rows = shape[0] * shape[1]
    else:
        turned = x.movedim(1, 0)
        return turned.reshape(shape[1], -1), lambda y: y.reshape(turned.shape).movedim(0, 1)
    return x.reshape(rows, -1), lambda y: y.reshape(shape)

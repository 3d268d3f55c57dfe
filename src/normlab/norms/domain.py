"""Domain-specific batch normalization: several kinds of data, each with statistics and parameters of its own.

    y = weight[k] * (x - mean) / sqrt(var + eps) + bias[k]      for a batch of domain k

    mean, var     of the batch in training, the running averages of domain k in evaluation

Photographs and drawings, real and generated images, two hospitals' scanners: one network may serve several kinds
of data (domains) that differ in brightness, contrast or the like. If they share a batch norm, its running
averages fit none of them. Here all other layers are shared, but each domain has its own running averages,
weight and bias. A batch is of one domain.

Which one is said by a context around the call, `with in_domain(model, k): model(x)`: the layer stands somewhere
inside a model whose forward passes on x and nothing else, so that an argument would not reach it; and the model
is named, since a context without one would be a global that also changes other models. Outside of any context
the domain is 0.

Over: the batch (all of one domain) and all positions; each channel by itself.
Cost: that of batch normalization; parameters and statistics once for each domain.
When: for training on, or adapting to, data of known different sources. Not where the source is unknown in evaluation:
    there is no way to choose the statistics.
Source: Chang, You, Seo, Kwak & Han 2019, arXiv 1906.03950, section 3; statistics alone: Li et al. 2016, AdaBN,
    arXiv 1603.04779.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d


class _Domain(nn.Module):
    """`num_domains` (2) batch norms, of which `domain` says the one at work; further arguments as of BatchNorm.

    Its state_dict holds theirs as `domains.0.weight` and so on; its own `weight`, `running_mean` and the like are
    those of the domain at work.
    """

    kind: ClassVar = "batch"
    batch_norm: ClassVar[type[BatchNorm1d | BatchNorm2d | BatchNorm3d]]

    def __init__(self, num_features: int, *args: Any, num_domains: int = 2, **kwargs: Any) -> None:
        super().__init__()
        if num_domains < 1:
            raise NormlabError("num_domains of 1 or more", num_domains)
        self.domains = nn.ModuleList(self.batch_norm(num_features, *args, **kwargs) for _ in range(num_domains))
        self.domain = 0

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalizes x (N, C, *spatial), all of it of the current domain; `mask` as in `functional.batch_norm`."""
        return self.at_work(input, mask)

    @property
    def at_work(self) -> BatchNorm1d | BatchNorm2d | BatchNorm3d:
        """The batch norm of the current domain."""
        return self.domains[self.domain]  # type: ignore[return-value]

    @property
    def num_features(self) -> int:
        return self.at_work.num_features

    @property
    def eps(self) -> float:
        return self.at_work.eps

    @property
    def momentum(self) -> float | None:
        return self.at_work.momentum

    @property
    def weight(self) -> Tensor | None:
        return self.at_work.weight

    @property
    def bias(self) -> Tensor | None:
        return self.at_work.bias

    @property
    def running_mean(self) -> Tensor | None:
        return self.at_work.running_mean

    @property
    def running_var(self) -> Tensor | None:
        return self.at_work.running_var

    @property
    def num_batches_tracked(self) -> Tensor | None:
        return self.at_work.num_batches_tracked

    @property
    def nonfinite_batches(self) -> Tensor:
        return self.at_work.nonfinite_batches

    def extra_repr(self) -> str:
        return f"domain={self.domain}"


@contextlib.contextmanager
def in_domain(model: nn.Module, domain: int) -> Iterator[None]:
    """While entered, every domain-specific norm of the model takes its input for that of this domain.

    Raises NormlabError where the model has none, or one of them knows no such domain.
    """
    layers = [module for module in model.modules() if isinstance(module, _Domain)]
    if not layers:
        raise NormlabError("a model with domain-specific norms", f"a {type(model).__name__} without any")
    fewest = min(len(layer.domains) for layer in layers)
    if not 0 <= domain < fewest:
        raise NormlabError(f"a domain from 0 to {fewest - 1}", domain, "num_domains says how many there are")
    before = [layer.domain for layer in layers]
    try:
        for layer in layers:
            layer.domain = domain
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.domain = old


class DomainBatchNorm1d(_Domain):
    """Of (N, C) or (N, C, L)."""

    batch_norm = BatchNorm1d


class DomainBatchNorm2d(_Domain):
    """Of (N, C, H, W)."""

    batch_norm = BatchNorm2d


class DomainBatchNorm3d(_Domain):
    """Of (N, C, D, H, W)."""

    batch_norm = BatchNorm3d


FAMILY = {"domain": {1: DomainBatchNorm1d, 2: DomainBatchNorm2d, 3: DomainBatchNorm3d}}

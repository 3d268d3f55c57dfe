"""What is put before the laws: a factory of layers, its kind, a dtype, and the form of input it takes."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from normlab.errors import NormlabError, one_line
from normlab.testing.kinds import DIVIDED_BY_RMS, OVER_CHANNELS, sets

Factory = Callable[..., nn.Module]

CHANNELS = 4
ROWS = 6
SPATIAL = ((3, 2), (5,), (), (2, 3, 2))
"""Of the inputs that are tried, in this order: a layer of (N, C, L) may take (N, C) for something else."""

NO_THRESHOLD = -1e4
"""For the `threshold` (or `tau`) of a thresholded linear unit, max(y, tau): below every value, it is not there."""


class DoesNotApply(Exception):  # noqa: N818 - a finding, no error of the program
    """Why a law cannot be asked of this layer."""


@dataclass(frozen=True)
class Subject:
    """Layers and inputs of one dtype, the same at every call."""

    factory: Factory
    kind: str
    dtype: torch.dtype
    spatial: tuple[int, ...]

    @property
    def u(self) -> float:
        """Machine epsilon."""
        return torch.finfo(self.dtype).eps

    def exact(self, double: float, single: float) -> float:
        """The tolerance of a law that states one for each precision."""
        return double if self.dtype == torch.float64 else single

    def make(self, *, drawn: bool = False, prefer: Mapping[str, Any] | None = None, **options: Any) -> nn.Module:
        """A new layer in training mode; gamma 1 and beta 0, or random with `drawn`.

        `prefer` are options that it gets if it takes them. Raises DoesNotApply if it does not take `options`.
        """
        with _seeded():
            if prefer:
                try:
                    layer = self.factory(CHANNELS, **prefer, **options)
                except TypeError:
                    return self.make(drawn=drawn, **options)
            else:
                try:
                    layer = self.factory(CHANNELS, **options)
                except (TypeError, ValueError) as error:
                    if not options:
                        raise
                    raise DoesNotApply(f"it does not take {_listed(options)}") from error
        layer = layer.to(self.dtype).train()
        if self.kind != "weights":
            _fill(layer, drawn)
        return layer

    def without_eps(self, *, drawn: bool = False) -> nn.Module:
        """A layer at eps = 0; DoesNotApply if it takes none, or refuses it when it is called, as torch's do."""
        layer = self.make(drawn=drawn, eps=0.0)
        try:
            run(layer, self.draw())
        except (RuntimeError, ValueError) as error:
            raise DoesNotApply("it refuses eps = 0") from error
        return layer

    def trained(self, **options: Any) -> nn.Module:
        """A layer in evaluation mode that has seen three batches; gamma and beta are random."""
        layer = self.make(drawn=True, **options)
        with torch.no_grad():
            for seed in range(3):
                step(layer, self.draw(seed=10 + seed))
        return layer.eval()

    def draw(
        self, *, seed: int = 0, rows: int = ROWS, spatial: tuple[int, ...] | None = None, mean: float = 1.0
    ) -> Tensor:
        """Inputs (rows, C, *spatial) of correlated channels, each with a mean and a deviation of its own near 1."""
        spatial = self.positions if spatial is None else spatial
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, CHANNELS, math.prod(spatial), generator=generator, dtype=torch.float64)
        mixing = torch.eye(CHANNELS, dtype=torch.float64) + 0.25 * torch.ones(CHANNELS, CHANNELS).double().tril(-1)
        scale = torch.linspace(0.7, 1.4, CHANNELS, dtype=torch.float64).view(1, -1, 1)
        x = scale * torch.einsum("cd,nds->ncs", mixing, x)
        x = x + mean * torch.linspace(0.5, 1.5, CHANNELS, dtype=torch.float64).view(1, -1, 1)
        return x.reshape(rows, CHANNELS, *spatial).to(self.dtype).contiguous()

    @property
    def positions(self) -> tuple[int, ...]:
        """The spatial sizes of its inputs: ones where its kind leaves open what it does with positions."""
        return tuple(1 for _ in self.spatial) if self.kind in OVER_CHANNELS else self.spatial

    @property
    def single(self) -> tuple[int, ...]:
        """Spatial sizes of one position."""
        return tuple(1 for _ in self.spatial)

    def rows(self, x: Tensor, layer: nn.Module) -> Tensor:
        """Of x: (sets, elements that share statistics)."""
        return sets(self.kind, x, layer)[0]

    def spread(self, x: Tensor, layer: nn.Module) -> Tensor:
        """What it divides by, squared and without eps, of each set: biased variance, or mean square. (sets, 1)."""
        rows = self.rows(x, layer)
        if self.kind in DIVIDED_BY_RMS:
            return rows.square().mean(1, keepdim=True)
        return rows.var(1, correction=0, keepdim=True)

    def plain(self, x: Tensor, layer: nn.Module) -> Tensor:
        """The plain formula of its kind at gamma 1 and beta 0, in x's dtype, differentiable."""
        rows, back = sets(self.kind, x, layer)
        centered = rows if self.kind in DIVIDED_BY_RMS else rows - rows.mean(1, keepdim=True)
        return back(centered * (self.spread(x, layer) + eps_of(layer)).rsqrt())

    def condition(self, x: Tensor, layer: nn.Module) -> float:
        """The k = 1 + |mean| / s of the sets: by how much rounding of the input is magnified."""
        rows = self.rows(x, layer).double()
        eps = getattr(layer, "eps", None)
        s = (rows.var(1, correction=0) + (eps if isinstance(eps, float | int) else 0.0)).sqrt()
        return 1 + (rows.mean(1).abs() / s).max().item()


def subject(factory: Factory, kind: str, dtype: torch.dtype) -> Subject:
    """The first form of input that the layer takes and gives back in shape.

    Raises NormlabError if the factory does not make a layer of num_features alone, or it takes no input.
    """
    try:
        with _seeded():
            layer = factory(CHANNELS)
    except NormlabError:
        raise
    except Exception as error:
        raise NormlabError(
            f"a factory that makes a layer of num_features = {CHANNELS} alone",
            one_line(error),
            "wrap it in a function",
        ) from error
    if not isinstance(layer, nn.Module):
        raise NormlabError("a factory of layers (nn.Module)", f"one of {type(layer).__name__}")
    refusals = []
    for spatial in SPATIAL:
        tried = Subject(factory, kind, dtype, spatial)
        x = tried.draw()
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("error")
                y = step(tried.make(), x)
        except Exception as error:
            refusals.append(one_line(error))
            continue
        if isinstance(y, Tensor) and y.shape == x.shape:
            return tried
        refusals.append("another shape")
    raise NormlabError(
        f"a layer that gives (N, {CHANNELS}, *spatial) back for (N, {CHANNELS}, *spatial) in {dtype}",
        f"of inputs with 2, 1, 0 and 3 spatial dimensions: {' / '.join(refusals)}",
        "wrap it in a function that makes one",
    )


def run(layer: nn.Module, x: Tensor, *arguments: Any) -> Tensor:
    """layer(x) as at the first call: the same random numbers, and no buffer moves."""
    buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    with _seeded():
        return functional_call(layer, buffers, (x, *arguments))


def step(layer: nn.Module, x: Tensor, *arguments: Any) -> Tensor:
    """layer(x), with the same random numbers at every call."""
    with _seeded():
        return layer(x, *arguments)


def eps_of(layer: nn.Module) -> float:
    """What the layer adds to the variance; DoesNotApply if it does not say."""
    eps = getattr(layer, "eps", None)
    if not isinstance(eps, float | int):
        raise DoesNotApply("it has no attribute eps")
    return float(eps)


def needs(layer: nn.Module, *names: str) -> None:
    """DoesNotApply unless the layer has all these attributes, and none is None."""
    for name in names:
        if getattr(layer, name, None) is None:
            raise DoesNotApply(f"it has no {name}")


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """While entered, torch draws from a seed; afterwards it goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _fill(layer: nn.Module, drawn: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for path, parameter in layer.named_parameters():
            name = path.rpartition(".")[2]
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            if name == "weight":
                parameter.copy_(1 + 0.3 * noise.clamp(-2, 2) if drawn else torch.ones_like(noise))
            elif name == "bias":
                parameter.copy_(noise if drawn else torch.zeros_like(noise))
            elif name in ("threshold", "tau"):
                parameter.fill_(NO_THRESHOLD)


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())

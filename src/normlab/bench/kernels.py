"""Every kernel of a network's training step, timed alone and held against its floor.

The floor of a product is its multiply-adds over the measured peak of one core. Of what stands between products
(norm, activation, pooling, packing, loss) it is the time to copy as many bytes as it must read and write.
"""

import dataclasses
import statistics
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from normlab.bench.networks import CLASSES, SHAPE, build
from normlab.bench.peak import fma_peak
from normlab.bench.turns import Run, time_call
from normlab.errors import NormlabError
from normlab.kernels import Lanes, Link, Settings, Tensors, pack
from normlab.kernels.program import INPUT, written
from normlab.surgery import lanes_step, to_lanes

_NONE = torch.empty(0)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel: what it is called on, and the least that it must do."""

    name: str
    run: Run
    flops: float = 0.0
    bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Timing:
    """A kernel's median time, and its floor, in seconds."""

    name: str
    seconds: float
    floor: float
    is_product: bool


def time_kernels(name: str, batch: int, rounds: int) -> tuple[list[Timing], float]:
    """Every kernel of the network's step on one thread, in turns, and the peak in GFLOP/s.

    Raises NormlabError where the network is not one run in lanes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kernels = list(_kernels(name, batch))
        source = torch.ones(1 << 20)
        target = torch.empty_like(source)
        kernels.append(Kernel("copy", lambda: target.copy_(source), bytes=2.0 * source.nbytes))
        seconds: dict[str, list[float]] = {kernel.name: [] for kernel in kernels}
        peaks = [fma_peak(tries=3)]
        for _ in range(rounds):
            for kernel in kernels:
                seconds[kernel.name].append(time_call(kernel.run))
            peaks.append(fma_peak(tries=1))
    finally:
        torch.set_num_threads(threads)
    copied = kernels.pop()
    per_byte, peak = statistics.median(seconds["copy"]) / copied.bytes, max(peaks)
    return [
        Timing(
            kernel.name,
            statistics.median(seconds[kernel.name]),
            max(kernel.flops / (peak * 1e9), kernel.bytes * per_byte),
            kernel.flops > 0,
        )
        for kernel in kernels
    ], peak


def _kernels(name: str, batch: int) -> Iterator[Kernel]:
    model = build(name)
    to_lanes(model)
    step = lanes_step(model)
    images = torch.randint(0, 256, (batch, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    index, targets = torch.randperm(batch), torch.arange(batch) % CLASSES
    x = pack(images, index, 1 / 255)
    chain = None if step is None else step.chain(x)
    if chain is None:
        raise NormlabError(f"{name} as one run in lanes", "none", "`normlab doctor` says what serves it")
    yield Kernel("pack", lambda: pack(images, index, 1 / 255), bytes=images.nbytes + x.data.nbytes)
    values: list[Lanes] = []
    for number, (link, tensors) in enumerate(zip(chain.links, chain.tensors, strict=True)):
        parts = [x if source == INPUT else values[source] for source in link.sources]
        data = parts[0].data if len(parts) == 1 else torch.cat([part.data for part in parts], 1)
        value = Lanes(data.flatten(1, -2) if link.flatten else data, batch)
        residual = None if link.residual is None else values[link.residual].data
        path = f"{number} {link.head}" if link.head != "none" else f"{number}"
        if link.head != "none":
            assert tensors.weight is not None
            head = Link(Settings(link.settings.stride, link.settings.padding), link.head)
            own = Tensors(tensors.weight.detach(), None if tensors.bias is None else tensors.bias.detach())
            value = yield from _product(path, head, own, value, onward=number > 0)
        settings = dataclasses.replace(link.settings, stride=(1, 1), padding=(0, 0))
        if settings == dataclasses.replace(Settings(), eps=settings.eps) and residual is None:
            values.append(value)
            continue
        own = Tensors(gamma=tensors.gamma, beta=tensors.beta, mean=tensors.mean, var=tensors.var, residual=residual)
        values.append((yield from _between(f"{number} {_words(settings)}", Link(settings, "none"), own, value)))
    logits = values[-1]
    yield Kernel(
        "cross-entropy",
        lambda: torch.ops.normlab.cross_entropy(logits.data, batch, targets),
        bytes=2.0 * logits.data.nbytes,
    )


def _product(path: str, link: Link, tensors: Tensors, x: Lanes, *, onward: bool) -> Generator[Kernel, None, Lanes]:
    """A convolution or linear layer: forward, and the gradients of its weight and, if they go on, of its input."""
    call = _Call(link, tensors, x)
    assert tensors.weight is not None
    out = call.saved[0]
    flops = 2.0 * x.count * (out.numel() / out.shape[0] / out.shape[-1]) * tensors.weight[0].numel()
    yield Kernel(f"{path}, forward", call.forward, flops)
    yield Kernel(f"{path}, gradient of the weight", call.backward(of_weight=True, of_input=False), flops)
    if onward:
        yield Kernel(f"{path}, gradient of the input", call.backward(of_weight=False, of_input=True), flops)
    return Lanes(out, x.count)


def _between(path: str, link: Link, tensors: Tensors, x: Lanes) -> Generator[Kernel, None, Lanes]:
    """What stands between two products, forward and backward."""
    call = _Call(link, tensors, x)
    out = call.saved[0]
    added = 0 if tensors.residual is None else tensors.residual.nbytes
    yield Kernel(f"{path}, forward", call.forward, bytes=x.data.nbytes + out.nbytes + added)
    backward = call.backward(of_weight=True, of_input=True)
    yield Kernel(f"{path}, backward", backward, bytes=out.nbytes + 2.0 * x.data.nbytes + 2 * added)
    return Lanes(out, x.count)


class _Call:
    """One stage as the native ops take it."""

    def __init__(self, link: Link, tensors: Tensors, x: Lanes) -> None:
        self._x = x
        self._link = link
        self._given = [_NONE if each is None else each.detach() for each in tensors]
        self.saved: list[Tensor] = self.forward()

    def forward(self) -> list[Tensor]:
        _, numbers, factors = written([self._link], [True])
        with torch.no_grad():
            saved: list[Tensor] = torch.ops.normlab.chain.default(
                self._x.data, self._x.count, self._given, numbers, factors
            )
        return saved

    def backward(self, *, of_weight: bool, of_input: bool) -> Run:
        _, numbers, factors = written([self._link], [of_weight])
        g = torch.ones_like(self.saved[0])
        op = torch.ops.normlab.chain_backward.default

        def run() -> object:
            with torch.no_grad():
                return op(g, self._x.data, self._x.count, self._given, self.saved, numbers, factors, of_input)

        return run


def _words(settings: Settings) -> str:
    norm = "" if settings.norm == "none" else "norm"
    pool = f"{settings.pool.kind} pool" if settings.pool else ""
    parts = (settings.before, norm, settings.activation, pool)
    return ", ".join(part for part in parts if part not in ("", "none")) or "add"

"""normlab bench: how fast it is here, measured against what else there is."""

import json as json_lines
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter

from normlab.cli.tables import plain_console, print_table
from normlab.errors import NormlabError

if TYPE_CHECKING:
    from normlab.bench.results import Comparison

bench = cyclopts.App(
    name="bench", help="Measure speed on this machine, against other libraries.", help_format="plaintext"
)


@bench.command
def train(
    *networks: str,
    peers: str = "eager,compile,jax",
    threads: str | None = None,
    rounds: int = 7,
    steps: int | None = None,
    seconds_to: float | None = None,
    data: str = "fashion-mnist",
    format: Literal["text", "md"] = "text",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train networks in lanes, in torch eager, torch.compile and JAX, in turns; data loading and optimizer included.

    Args:
        networks: lenet, lenet-relu, lenet-none, mlp, resnet8. Default: all.
        peers: which of eager, compile and jax to compare with.
        threads: numbers of threads, as 1,2. Default: 1 and 2, as far as there are cores.
        rounds: turns of every side.
        steps: steps of a turn. Default: the network's.
        seconds_to: measure too how long ours and eager train to this test accuracy, as 0.8.
        data: images (1, 28, 28) in ten classes.
        format: text, or md for a table in Markdown.
        json: end with one line of JSON, an object by network.

    """
    from normlab.bench.networks import NETWORKS
    from normlab.bench.train import check_kernels, compare
    from normlab.bench.worker import cores, free_cores
    from normlab.data import load
    from normlab.errors import choose

    for name in networks:
        choose(NETWORKS, name, "network")
    numbers = _numbers(threads, "--threads as 1 or 1,2") if threads else [1, 2][: len(free_cores())]
    for number in numbers:
        cores(number)
    check_kernels()
    load(data, say=_progress)
    found = [
        compare(
            name,
            peers=[peer for peer in peers.split(",") if peer],
            threads=numbers,
            rounds=rounds,
            steps=steps,
            accuracy=seconds_to,
            data=data,
            say=_progress,
        )
        for name in dict.fromkeys(networks or NETWORKS)
    ]
    (_print_markdown if format == "md" else _print_text)(found, seconds_to)
    if json:
        print(json_lines.dumps({each.network: each.to_json() for each in found}))


@bench.command
def kernels(
    network: str = "lenet",
    /,
    *,
    batch: int = 256,
    rounds: int = 9,
    format: Literal["text", "md"] = "text",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Time every kernel of a network's training step alone, on one thread, beside its floor.

    The floor of a product is its multiply-adds over the measured peak of a core; of all else it is the time to copy
    as many bytes as it must read and write.

    Args:
        network: lenet, lenet-relu, lenet-none, mlp or resnet8.
        batch: examples.
        rounds: turns of every kernel, of which the median counts.
        format: text, or md for a table in Markdown.
        json: end with one line of JSON.

    """
    from normlab.bench.kernels import time_kernels
    from normlab.bench.networks import NETWORKS
    from normlab.bench.train import check_kernels
    from normlab.errors import choose

    choose(NETWORKS, network, "network")
    for name, value in (("--batch", batch), ("--rounds", rounds)):
        if value < 1:
            raise NormlabError(f"{name} of 1 or more", value)
    check_kernels()
    found, peak = time_kernels(network, batch, rounds)
    whole = sum(each.seconds for each in found)
    header = ("kernel", "us", "of_the_step", "floor_us", "floor_is", "of_the_floor")
    rows = [
        [each.name, f"{1e6 * each.seconds:,.0f}", f"{each.seconds / whole:.1%}", f"{1e6 * each.floor:,.0f}",
         "multiply-adds" if each.is_product else "bytes", f"{each.floor / each.seconds:.0%}"]
        for each in found
    ]  # fmt: skip
    products = sum(each.floor for each in found if each.is_product)
    rows.append(
        ["all", f"{1e6 * whole:,.0f}", "", f"{1e6 * products:,.0f}", "multiply-adds", f"{products / whole:.0%}"]
    )
    _print_rows(f"{_where()}, FMA peak {peak:.1f} GFLOP/s", header, rows, format)
    if json:
        each_of = {each.name: {"seconds": each.seconds, "floor": each.floor} for each in found}
        print(json_lines.dumps({"network": network, "batch": batch, "fma_peak_gflops": peak, "kernels": each_of}))


@bench.command
def norms(
    *names: str,
    shape: str = "256,64,14,14",
    threads: int = 1,
    rounds: int = 7,
    format: Literal["text", "md"] = "text",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Time norms forward and backward in training, in turns, against torch.nn.BatchNorm2d.

    A pass is one reading or writing of the input, half of the time to copy it. A layer needs five at least: the
    input read and the output written, then input and gradient read and the input's gradient written.

    Args:
        names: normalizations, your own as pkg.module:MyNorm. Default: the whole family.
        shape: of the input, N,C,H,W.
        threads: of torch.
        rounds: turns of every norm, of which the median counts.
        format: text, or md for a table in Markdown.
        json: end with one line of JSON, an object by name.

    """
    import dataclasses

    from normlab.bench.norms import time_norms
    from normlab.bench.worker import cores
    from normlab.nn import norm_names

    sizes = _numbers(shape, "--shape as 256,64,14,14")
    if len(sizes) != 4 or min(sizes) < 1:
        raise NormlabError("--shape as N,C,H,W, each 1 or more", shape)
    if rounds < 1:
        raise NormlabError("--rounds of 1 or more", rounds)
    cores(threads)
    found = time_norms([*dict.fromkeys(names)] or norm_names(), sizes, rounds, threads)
    header = ("norm", "ms", "times_batch_norm", "passes", "floor")
    rows = [
        [name, f"{each.ms:,.2f}", f"{each.vs_batch_norm:.2f}", f"{each.passes:.1f}", str(each.floor_passes)]
        for name, each in found.items()
    ]
    _print_rows(_where(), header, rows, format)
    if json:
        print(json_lines.dumps({name: dataclasses.asdict(each) for name, each in found.items()}))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _numbers(text: str, expected: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise NormlabError(expected, repr(text)) from None


def _print_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], format: str) -> None:
    plain_console().print(f"{title}\n")
    if format == "md":
        _print_markdown_rows(header, rows)
    else:
        print_table(header, rows)


def _print_markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")


def _print_text(found: "Sequence[Comparison]", accuracy: float | None) -> None:
    console = plain_console()
    console.print(_where())
    for each in found:
        figures = each.to_json()
        console.print(f"\n{each.network}: {each.flops:,.0f} FLOP an example and step, ", end="")
        console.print(f"FMA peak {figures['fma_peak_gflops']:.0f} GFLOP/s a core, ", end="")
        console.print(f"medians of {figures['rounds']} rounds of {each.steps} steps")
        header = ("threads", "arm", "examples_per_s", "of_the_peak", "ours_is_times", "from_round_to_round")
        print_table(header, each.rows())
        if each.scaling_2:
            console.print(f"2 threads are {each.scaling_2:.2f} times one")
        if each.peak_bytes_vs_eager is not None:
            ours, eager = (f"{each.peak_bytes[arm] or 0:,}" for arm in ("ours", "eager"))
            console.print(f"a step's peak memory: {ours} bytes, eager {eager}: {each.peak_bytes_vs_eager:.2f}")
        for arm, seconds in (each.seconds_to or {}).items():
            reached = "not reached" if seconds is None else f"{seconds:.1f} s of training"
            console.print(f"{arm} to test accuracy {accuracy}: {reached}")
        for arm, why in each.left_out.items():
            console.print(f"without {arm}: {why}")


def _print_markdown(found: "Sequence[Comparison]", accuracy: float | None) -> None:
    from normlab.bench.results import MARKDOWN

    print(f"{_where()}\n")
    rows = [row for each in found for row in each.markdown()]
    _print_markdown_rows(MARKDOWN, rows)


def _where() -> str:
    from normlab.store.trial import machine, versions

    facts = machine()
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, torch {versions()['torch']}, "
        f"normlab {' '.join(sys.argv[1:])}"
    )

import json
import math
import os
import sys

import pytest
import torch

from normlab import data
from normlab.bench import train as bench
from normlab.bench.arms import batches, make
from normlab.bench.memory import peak_growth
from normlab.bench.networks import NETWORKS, training_flops
from normlab.bench.results import MARKDOWN, Comparison
from normlab.cli import main
from normlab.errors import NormlabError
from normlab.kernels import serving

BATCH = 32
KEYS = {
    "examples_per_s", "vs_eager", "vs_compile", "vs_jax", "fma_share", "scaling_2", "peak_bytes_vs_eager",
    "seconds_to",
}  # fmt: skip

needs_native = pytest.mark.skipif(
    serving.looked_up().name != "native" and os.environ.get("NORMLAB_KERNELS") != "native", reason="needs a compiler"
)


def test_the_arithmetic_of_a_step_is_counted_as_by_hand():
    conv1, conv2 = 24 * 24 * 6 * 25, 8 * 8 * 16 * 6 * 25
    linear = 256 * 120 + 120 * 84 + 84 * 10
    assert training_flops("lenet") == 2 * (3 * (conv1 + conv2 + linear) - conv1)


def weights_of(arm):
    """Parameters and running statistics by name."""
    if hasattr(arm, "statistics"):
        return {key: torch.tensor(value.tolist()) for key, value in (arm.parameters | arm.statistics).items()}
    return {key: value.clone() for key, value in arm.model.state_dict().items() if "running_" in key} | {
        key: value.detach().clone() for key, value in arm.model.named_parameters()
    }


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("peer", ["ours", "jax"])
def test_every_arm_trains_as_eager_does(network, peer):
    if peer == "jax":
        pytest.importorskip("jax")
    split = data.load("digits").train
    eager, arm = make("eager", network, split), make(peer, network, split)
    order, initial = batches(96, BATCH), weights_of(eager)
    for step in range(2):
        index = next(order)
        for each in (eager, arm):
            each.step(index)
        assert arm.loss() == pytest.approx(eager.loss(), rel=1e-5)
        if step == 0:  # at the second, a ReLU may already fall on the other side of zero
            got, expected = weights_of(arm), weights_of(eager)
    assert set(got) == set(expected) == set(initial)
    for key, value in expected.items():
        moved = float((value - initial[key]).abs().max())
        assert moved > 0 or key.endswith("bias"), key
        # The gradient of a bias before a norm is nothing but rounding.
        assert float((got[key] - value).abs().max()) <= 1e-3 * moved + 1e-5, (key, moved)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells the peak")
def test_the_peak_is_that_of_the_call():
    held = torch.ones(2**24)
    slack = 2**22  # the system counts pages in lots
    assert abs(peak_growth(lambda: torch.ones(2**23)) - 2**25) <= slack
    assert peak_growth(lambda: held.add_(1)) <= slack


def test_an_order_is_of_full_batches_and_the_same_everywhere():
    one, other = batches(70, BATCH), batches(70, BATCH)
    drawn = [next(one) for _ in range(4)]
    assert all(len(index) == BATCH for index in drawn)
    assert len(set(torch.cat(drawn[:2]).tolist())) == 2 * BATCH
    assert not torch.equal(torch.cat(drawn[:2]), torch.cat(drawn[2:]))
    assert all(torch.equal(index, next(other)) for index in drawn)


def test_arms_that_do_not_agree_are_refused():
    bench.check_agreement({"one": (1.0, 2.0), "other": (1.00001, 2.0)})
    for losses in ((1.0002, 2.0), (1.0, 2.001), (math.nan, 2.0)):
        with pytest.raises(NormlabError, match="expected the loss"):
            bench.check_agreement({"one": (1.0, 2.0), "other": losses})


def comparison(**changes):
    speeds = {
        (1, "ours"): [100.0, 200.0, 300.0],
        (1, "eager"): [50.0, 50.0, 300.0],
        (2, "ours"): [150.0, 400.0, 600.0],
    }
    given = {
        "network": "lenet", "speeds": speeds, "peak": 4.0, "flops": 1e6, "steps": 2,
        "peak_bytes": {"ours": 1, "eager": 4}, "left_out": {"jax": "not here"},
    }  # fmt: skip
    return Comparison(**given | changes)


def test_ratios_are_taken_within_rounds():
    figures = comparison().to_json()
    assert set(figures) >= KEYS
    assert (figures["examples_per_s"], figures["vs_eager"], figures["scaling_2"]) == (200.0, 2.0, 2.0)
    assert figures["by_threads"]["1"]["vs_range"] == {"eager": [1.0, 4.0]}
    assert figures["fma_share"] == pytest.approx(0.05)
    assert figures["by_threads"]["2"]["fma_share"] == {"ours": pytest.approx(0.05)}
    assert figures["peak_bytes_vs_eager"] == 0.25
    assert (figures["vs_jax"], figures["vs_compile"], figures["left_out"]) == (None, None, {"jax": "not here"})
    assert [len(row) for row in comparison().markdown()] == [len(MARKDOWN)] * 2


def test_what_was_not_measured_is_null():
    figures = comparison(speeds={(1, "ours"): [1.0]}, peak=1.0, peak_bytes={"ours": 1}).to_json()
    assert {key for key in KEYS if figures[key] is None} == KEYS - {"examples_per_s", "fma_share"}


def command(capsys, *arguments):
    code = 0
    try:
        main(["bench", "train", *arguments])
    except SystemExit as ended:
        code = ended.code or 0
    return code, *capsys.readouterr()


@needs_native
def test_a_small_run(capsys):
    options = "--data", "digits", "--rounds", "2", "--steps", "2", "--threads", "1", "--peers", "eager", "--json"
    code, out, err = command(capsys, "mlp", *options)
    assert code == 0, err
    assert "mlp: round 2 of 2" in err
    figures = json.loads(out.splitlines()[-1])
    assert set(figures) == {"mlp"}
    assert set(figures["mlp"]) >= KEYS
    for key in ("examples_per_s", "vs_eager", "fma_share", "peak_bytes_vs_eager", "fma_peak_gflops"):
        assert figures["mlp"][key] > 0, key
    assert (figures["mlp"]["vs_jax"], figures["mlp"]["rounds"], figures["mlp"]["steps"]) == (None, 2, 2)


def test_without_native_kernels_it_says_so_in_a_line(capsys, monkeypatch):
    monkeypatch.setenv("NORMLAB_KERNELS", "reference")
    serving.path.cache_clear()
    try:
        code, out, err = command(capsys, "mlp")
    finally:
        serving.path.cache_clear()
    assert (code, out) == (2, "")
    assert err == "normlab: expected native kernels, which this measures, got reference, as NORMLAB_KERNELS asks\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lenet-rel",), "did you mean lenet-relu?"),
        (("mlp", "--threads", "one"), "--threads as 1 or 1,2"),
        (("mlp", "--threads", "1,9999"), "the cores of this process"),
        (("mlp", "--peers", "eagr", "--data", "digits"), "did you mean eager?"),
        (("mlp", "--rounds", "0", "--data", "digits"), "rounds, steps and threads from 1"),
    ],
)
def test_mistakes_are_told_in_a_line(capsys, arguments, said):
    code, out, err = command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err or "native kernels" in err
    assert err.count("\n") == 1

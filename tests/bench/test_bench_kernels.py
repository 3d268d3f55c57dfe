"""normlab bench kernels: each kernel of a step beside its floor."""

import json
import os

import pytest
import torch

from normlab.bench.kernels import time_kernels
from normlab.bench.networks import NETWORKS, training_flops
from normlab.cli import main
from normlab.kernels import serving

needs_native = pytest.mark.skipif(
    serving.looked_up().name != "native" and os.environ.get("NORMLAB_KERNELS") != "native", reason="needs a compiler"
)


@needs_native
@pytest.mark.parametrize("network", NETWORKS)
def test_the_products_are_the_arithmetic_of_a_step(network):
    threads = torch.get_num_threads()
    found, peak = time_kernels(network, batch=20, rounds=1)
    assert torch.get_num_threads() == threads
    floors = sum(each.floor for each in found if each.is_product)
    assert floors * peak * 1e9 == pytest.approx(20 * training_flops(network), rel=1e-6)
    names = [each.name for each in found]
    assert len(set(names)) == len(names)
    assert names[0] == "pack"
    assert names[-1] == "cross-entropy"
    assert all(each.seconds > 0 and each.floor > 0 for each in found)


@needs_native
def test_the_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "kernels", "mlp", "--batch", "20", "--rounds", "1", "--format", "md", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0
    assert lines[2].startswith("| kernel | us |")
    told = json.loads(lines[-1])
    assert (told["network"], told["batch"]) == ("mlp", 20)
    assert len(told["kernels"]) == len(lines) - 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["lenett"], "lenet"), (["--batch", "0"], "--batch of 1 or more"), (["--rounds", "0"], "--rounds of 1 or more")],
)
def test_mistakes_are_told_in_a_line(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "kernels", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 1
    assert said in lines[0]

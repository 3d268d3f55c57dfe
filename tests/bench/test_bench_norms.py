"""normlab bench norms: what each norm takes, in turns with torch's batch norm."""

import json

import pytest
import torch
from torch import nn

from normlab.bench import norms, turns
from normlab.bench.norms import FLOOR, REFERENCE, time_norms
from normlab.cli import main
from normlab.nn import norm_names

SHAPE = (4, 16, 3, 3)


class OfVectors(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_features)

    def forward(self, x):
        return self.linear(x)


@pytest.fixture
def a_clock(monkeypatch):
    """A clock that a call moves on by as many seconds as it is told."""
    now = [0.0]

    def move(seconds):
        now[0] += seconds

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    return move


def test_a_call_is_timed_without_its_first(a_clock):
    takes = iter([5.0, *[0.25] * 100])
    assert turns.time_call(lambda: a_clock(next(takes)), least=1.0) == 0.25


def test_medians_ratios_and_passes_are_those_of_the_rounds(monkeypatch):
    # of copy, of the reference, of the norm: the ratios' median is not the medians' ratio
    rounds = [(0.002, 0.01, 0.04), (0.001, 0.02, 0.02), (0.004, 0.05, 0.10)]
    given = iter([each for turn in rounds for each in turn])
    monkeypatch.setattr(norms, "time_call", lambda run: next(given))
    found = time_norms(["layer"], SHAPE, rounds=3)
    assert found["layer"] == norms.Timing(ms=40.0, vs_batch_norm=2.0, passes=40.0, floor_passes=FLOOR)
    assert found[REFERENCE] == norms.Timing(ms=20.0, vs_batch_norm=1.0, passes=25.0, floor_passes=FLOOR)


def test_a_step_is_forward_and_backward_on_so_many_threads(monkeypatch):
    threads, seen = torch.get_num_threads(), []

    def once(run):
        run()
        seen.append(torch.get_num_threads())
        return 1.0

    calls = []
    monkeypatch.setattr(nn.BatchNorm2d, "forward", _counted(nn.BatchNorm2d.forward, calls))
    monkeypatch.setattr(norms, "time_call", once)
    time_norms([], SHAPE, rounds=2, threads=2)
    assert seen == [2] * 4
    assert calls == ["forward", "backward"] * 2
    assert torch.get_num_threads() == threads


def _counted(forward, calls):
    def counted(self, x):
        calls.append("forward")
        y = forward(self, x)
        y.register_hook(lambda g: calls.append("backward"))
        return y

    return counted


def test_the_command_times_the_family(capsys):
    main(["bench", "norms", "--shape", "4,16,3,3", "--rounds", "1", "--format", "md", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| norm | ms |")
    told = json.loads(lines[-1])
    assert [*told] == [REFERENCE, *norm_names()]
    assert len(told) == len(lines) - 5
    assert all(each["ms"] > 0 and each["vs_batch_norm"] > 0 and each["passes"] > 0 for each in told.values())
    assert [name for name, each in told.items() if each["floor_passes"] != FLOOR] == ["none"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zcaa"], "zca"),
        (["--shape", "4,16,3"], "--shape as N,C,H,W"),
        (["--shape", "4,16,0,3"], "--shape as N,C,H,W"),
        (["--shape", "4,x"], "--shape as 256,64,14,14"),
        (["--rounds", "0"], "--rounds of 1 or more"),
        (["--threads", "0"], "threads from 1"),
        (["bench.test_bench_norms:OfVectors", "--shape", "4,16,3,3"], "to normalize (4, 16, 3, 3)"),
    ],
)
def test_mistakes_are_told_in_a_line(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "norms", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 1
    assert said in lines[0]

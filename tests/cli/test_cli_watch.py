import io
import re

import pytest
from rich.console import Console

from normlab.cli import watch
from normlab.store import Recipe
from normlab.train.progress import Sums


@pytest.fixture
def live(monkeypatch):
    """A bar in a terminal of text, with a clock of its own: a tenth of a second between two steps."""
    clock = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    observer = watch.observer_for(console, begun=lambda: None)
    observer.progress.get_time = lambda: clock[0]
    observer.tick = lambda: clock.__setitem__(0, clock[0] + 0.1)
    yield observer
    observer.end()


@pytest.mark.parametrize(("epochs_done", "steps_done"), [(0, 0), (2, 0), (2, 150)])
def test_the_speed_is_of_the_steps_that_were_done_here(live, epochs_done, steps_done):
    live.begin(Recipe(batch_size=100, epochs=5, device="cpu", threads=1), 200, epochs_done)
    assert live.progress.tasks[0].completed == 200 * epochs_done
    for step in range(steps_done + 1, steps_done + 31):
        live.tick()
        live.step(Sums(steps=step, examples=100 * step, loss=50.0 * step, correct=75 * step))
    task = live.progress.tasks[0]
    assert (task.completed, task.total) == (200 * epochs_done + steps_done + 30, 1000)
    assert task.fields["numbers"] == "loss 0.500, acc 0.750, 1000 examples/sec"
    assert task.time_remaining == pytest.approx((1000 - task.completed) / 10, abs=1)
    assert re.fullmatch(f"epoch {epochs_done + 1}/5", task.description)


def test_the_bar_is_not_redrawn_at_every_step(live):
    live.begin(Recipe(epochs=1, device="cpu", threads=1), 1000, 0)
    live.step(Sums(steps=1, examples=1, loss=1.0, correct=1))
    live.step(Sums(steps=2, examples=2, loss=8.0, correct=1))
    assert "loss 1.000" in live.progress.tasks[0].fields["numbers"]


def test_a_loader_of_unknown_length_has_no_end_in_sight(live):
    live.begin(Recipe(epochs=3, device="cpu", threads=1), None, 0)
    live.step(Sums(steps=1, examples=1, loss=1.0, correct=1))
    assert live.progress.tasks[0].total is None
    assert live.progress.tasks[0].time_remaining is None

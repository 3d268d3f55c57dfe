"""Fixtures of the tests of to_lanes."""

from collections.abc import Iterator

import pytest
from lanes_twins import REFERENCE

from normlab import surgery
from normlab.kernels import serving


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels in plain torch, in float64 too."""
    monkeypatch.setattr(serving, "path", lambda: REFERENCE)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one with every stage that runs in lanes."""
    calls: list[int] = []
    run = surgery.lanes_stage.stage

    def count(*args: object) -> object:
        calls.append(1)
        return run(*args)

    monkeypatch.setattr(surgery.lanes_stage, "stage", count)
    return calls

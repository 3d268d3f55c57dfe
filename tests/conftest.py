"""Shapes in the types of `norms/` are checked while the tests run; every test has a home of its own."""

import jaxtyping
import pytest

jaxtyping.install_import_hook("normlab.norms", "typechecker.check")

import torch  # noqa: E402 - the hook comes first


@pytest.fixture(autouse=True)
def one_thread():
    """A worker of pytest-xdist has one core; two workers with two threads each would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """The user's own store and checkpoints are never touched; the data cache is shared, as it is read only."""
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "home"))

"""Shapes in the types of `norms/` are checked while the tests run; every test has a home of its own."""

import jaxtyping
import pytest

jaxtyping.install_import_hook("normlab.norms", "typechecker.check")

import torch  # noqa: E402 - the hook comes first


@pytest.fixture(autouse=True)
def one_thread():
    """A worker of pytest-xdist has one core; two workers with two threads each would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def no_type_checks(monkeypatch):
    """As users run it: without the checks of shapes and types that the tests put in front of every call."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """The user's own store, checkpoints and data are never touched."""
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "home"))

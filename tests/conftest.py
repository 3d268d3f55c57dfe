"""Shapes in the types of `norms/` are checked while the tests run; every test has a home of its own."""

import os
from pathlib import Path

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


@pytest.fixture(scope="session")
def kernels_folder(request, tmp_path_factory):
    """Where the kernels are compiled once for all tests and workers, and for the next session."""
    if named := os.environ.get("NORMLAB_KERNELS_CACHE"):
        return Path(named)
    cache = getattr(request.config, "cache", None)  # none under -p no:cacheprovider
    folder = cache.mkdir("kernels") if cache else tmp_path_factory.mktemp("kernels")
    folder.chmod(0o700)
    return folder


@pytest.fixture(autouse=True)
def shared_kernels(kernels_folder, monkeypatch):
    """No test, and no process that it starts, compiles the kernels anew."""
    monkeypatch.setenv("NORMLAB_KERNELS_CACHE", str(kernels_folder))

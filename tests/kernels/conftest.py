"""Two codes for the same stages, and memory that nobody has written to."""

import os
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from stage_cases import REFERENCE

from normlab.kernels import ops, pack, serving, stage, unpack

CAN_COMPILE = sys.platform != "win32" and shutil.which("g++") is not None


def native():
    """The native code; where nothing can compile it the test is skipped, where something can it fails."""
    served = serving.path()
    if served.name != "native":
        expected = CAN_COMPILE and os.environ.get("NORMLAB_KERNELS") != "reference"
        (pytest.fail if expected else pytest.skip)(str(served))
    if wanted := os.environ.get("NORMLAB_TEST_WIDTH"):
        assert ops.width() == int(wanted)
    return SimpleNamespace(width=ops.width(), pack=pack, unpack=unpack, stage=stage)


@pytest.fixture(params=["native", "reference"])
def code(request):
    """`pack`, `unpack` and `stage` of one of the two."""
    return native() if request.param == "native" else REFERENCE


@pytest.fixture(name="native")
def native_code():
    return native()


@pytest.fixture(autouse=True)
def poisoned():
    """What an operator allocates holds NaN until it writes there."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)

"""Memory that is kept, counted in the pages that a process is given."""

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from normlab.train.memory import keep_freed
keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(4 << 20), torch.ones(12 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum(faults() for _ in range(2)), sum(faults() for _ in range(20)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's malloc is left as it is")
def test_what_is_freed_is_not_asked_for_again():
    out = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True).stdout
    first, later = map(int, out.split())
    assert first > 1000
    assert later < 2 * first, "twenty rounds, after two"

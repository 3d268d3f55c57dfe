"""The README's blocks run as written: ```sh in a shell, ```python in an interpreter; ```bash is set-up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def blocks(language):
    return [block for name, block in BLOCKS if name == language]


def test_the_readme_has_blocks_of_each_kind():
    assert {name for name, _ in BLOCKS} == {"bash", "sh", "python"}


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_run(block, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block, tmp_path):
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)


def test_the_two_commands_are_targets_of_the_makefile():
    named = re.findall(r"^make (\w+)", "".join(blocks("bash")), re.MULTILINE)
    assert named == ["reproduce", "setup"]
    subprocess.run(["make", "-n", *named], cwd=ROOT, check=True, capture_output=True)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).stat().st_size > 0, target

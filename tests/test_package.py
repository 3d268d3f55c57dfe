"""The wheel: complete, small, and at home outside the source tree."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (built,) = folder.glob("normlab-*.whl")
    return built


def test_holds_every_source_and_nothing_else(wheel):
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("normlab/")}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert shipped == {name for name in sources if "__pycache__" not in name}


def test_accepts_any_torch_from_2_10_on(wheel):
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    assert "Requires-Dist: torch>=2.10\n" in zipfile.ZipFile(wheel).read(metadata).decode()


def test_installs_outside_the_tree_beside_the_torch_that_is_there(wheel, tmp_path):
    """A new environment that sees this one's packages: pip must find torch good as it is, and then it must run."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    here = next(Path(path) for path in sys.path if Path(path, "torch", "__init__.py").is_file())
    (there,) = (tmp_path / "venv").glob("**/site-packages")
    (there / "parent.pth").write_text(f"{here}\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index"]
    # This environment has the source tree's normlab: the wheel goes over it, into the new one alone.
    subprocess.run([*install, "-q", "--ignore-installed", "--no-deps", wheel], check=True)
    asked = subprocess.run([*install, "--dry-run", wheel], check=True, capture_output=True, text=True)
    assert "Requirement already satisfied: torch>=2.10" in asked.stdout
    assert "Would install" not in asked.stdout
    script = "import normlab.train; print(normlab.train.__file__)"
    ran = subprocess.run([python, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout.startswith(str(there))
    command = [python, "-m", "normlab", "train", "--data", "digits", "--batch-size", "64", "--epochs", "1"]
    trained = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert trained.stdout.splitlines()[-1].startswith("loss ")

"""`check_norm` and `parametrize_with_laws` at their edges, and the comparison that owns the tolerances."""

import functools
import os
import subprocess
import sys

import pytest
import torch
from mutants.of_statistics import ForgetsTheMean
from norm_references import Batch, Tanh

from normlab.errors import NormlabError
from normlab.testing import LawBroken, check_norm
from normlab.testing.compare import Broken, differ, same, same_map
from normlab.testing.subject import run, step, subject


def test_a_broken_law_is_told_with_its_formula_inputs_expected_and_got():
    with pytest.raises(LawBroken) as told:
        check_norm(ForgetsTheMean)
    line = next(line for line in str(told.value).splitlines() if line.startswith("zero-mean"))
    assert "(mean xh = 0) in float64: mean of the normalized values, x float64 (6, 4, 3, 2)" in line
    assert "expected 0 within" in line
    assert ", got " in line


def test_the_kind_is_read_or_given_and_factories_need_no_class():
    check_norm(Tanh)
    check_norm(lambda num_features: Tanh(num_features), kind="tanh")
    check_norm(functools.partial(torch.nn.GroupNorm, 2), kind="any")


@pytest.mark.parametrize(
    ("factory", "kind", "message"),
    [
        (torch.nn.BatchNorm2d, None, 'BatchNorm2d without one; set kind = "..." on it'),
        (Tanh, "batsh", "did you mean batch?"),
        (lambda: None, "any", "makes a layer of num_features = 4 alone"),
        (lambda num_features: 3, "any", "layers (nn.Module), got one of int"),
        (lambda num_features: torch.nn.Linear(7, 7), "any", "gives (N, 4, *spatial) back"),
        (lambda num_features: torch.nn.Flatten(0), "any", "gives (N, 4, *spatial) back"),
    ],
)
def test_what_is_no_normalization_is_refused(factory, kind, message):
    with pytest.raises(NormlabError) as told:
        check_norm(factory, kind)
    assert message in str(told.value)


def test_a_run_leaves_the_layer_as_it_was_and_torchs_generator_too():
    layer, x = Batch(4), torch.randn(5, 4)
    state = torch.random.get_rng_state()
    run(layer, x)
    assert (layer.running_mean == 0).all()
    step(layer, x)
    assert (layer.running_mean != 0).all()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_subject_takes_the_form_of_input_that_its_layer_takes():
    forms = {torch.nn.BatchNorm1d: (5,), torch.nn.BatchNorm2d: (3, 2), torch.nn.BatchNorm3d: (2, 3, 2)}
    forms |= {torch.nn.InstanceNorm1d: (5,), torch.nn.LayerNorm: (), torch.nn.InstanceNorm3d: (2, 3, 2)}
    for factory, spatial in forms.items():
        assert subject(factory, "any", torch.float32).spatial == spatial


X = torch.linspace(-1, 1, 6, dtype=torch.float64)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (lambda: same("y", X, X + 2e-3, 1e-3, X), "expected -0.998 within 0.001, got -1 at (0,)"),
        (lambda: same("y", X, X[1:], 1.0, X), "expected shape (5,), got shape (6,)"),
        (lambda: same("y", X * float("nan"), X, 1.0, X), "got nan"),
        (lambda: same("y", X, X * float("nan"), 1.0, X), "expected nan"),
        (lambda: same_map("y", torch.sin, lambda x: x.sin().detach(), 1e-9, X), "y: its gradient"),
        (lambda: same_map("y", torch.sin, lambda x: x.sin().detach() + 0.9 * (x - x.detach()), 1e-9, X), "gradient"),
        (lambda: differ("y", torch.sin, torch.sin, 0.1, X), "a difference of 0.1 or more, got 0"),
        (lambda: differ("y", torch.sin, lambda x: x.sin() + 1, 0.1, X), "y: its gradient"),
    ],
)
def test_a_comparison_can_fail(compare, message):
    with pytest.raises(Broken) as told:
        compare()
    assert message in str(told.value)


def test_a_comparison_can_pass():
    same("y", X, X + 5e-4, 1e-3, X)
    same("y", 1e3 * X, 1e3 * X + 0.5, 1e-3, X)  # relative to the largest
    same_map("y", torch.sin, lambda x: x.sin() * 1, 0.0, X)
    differ("y", torch.sin, torch.cos, 0.1, X)


def test_the_laws_are_cases_in_a_users_suite(tmp_path):
    (tmp_path / "test_users.py").write_text(
        """
import torch
from normlab.testing import parametrize_with_laws

class Norm(torch.nn.Module):
    kind = "frozen"
    def __init__(self, num_features): super().__init__()
    def forward(self, x): return x.relu()

@parametrize_with_laws(Norm)
def test_norm(law):
    law()

@parametrize_with_laws(torch.nn.Identity, kind="any")
def test_identity(law):
    law()
"""
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    theirs = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=theirs)
    assert done.returncode == 1, done.stdout
    assert "test_norm[affine-in-its-input-float64]" in done.stdout
    assert "LawBroken: affine-in-its-input (y(h + z) - y(z) = y(h) - y(0)) in float64" in done.stdout
    assert "test_identity" not in done.stdout
    assert "skipped" in done.stdout


def test_pytest_is_imported_by_cases_alone():
    script = "import sys, normlab.testing; normlab.testing.all_laws(); assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)

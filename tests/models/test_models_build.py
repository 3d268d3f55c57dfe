"""The user's own model: whatever it is, it is built under its seed or refused in one line."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from normlab.errors import NormlabError
from normlab.models import build, find

numbers = itertools.count()
Written = Callable[[str], str]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writes a module of the user's into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def write(body: str) -> str:
        name = f"users_model_{next(numbers)}"
        Path(f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{body}\n")
        return name

    return write


def built(reference: str, seed: int = 0, **options: object) -> nn.Module:
    return build(reference, options, input_shape=(4,), classes=3, seed=seed)


def test_a_function_a_class_and_a_nested_one(written: Written) -> None:
    name = written(
        "def make(width=8): return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3))\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, *, bias=True): super().__init__(4, 3, bias=bias)\n"
        "    @staticmethod\n"
        "    def small(**anything): return nn.Linear(4, 3)\n"
    )
    assert built(f"{name}:make")[0].out_features == 8
    assert built(f"{name}:make", width=5)[0].out_features == 5
    assert built(f"{name}:Net", bias=False).bias is None
    assert isinstance(built(f"{name}:Net.small", whatever=1), nn.Linear)


def test_its_weights_follow_the_seed_and_nothing_else(written: Written) -> None:
    reference = written("def make(): return nn.Linear(4, 3)") + ":make"
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = built(reference, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(first.weight, built(reference, seed=5).weight)
    assert not torch.equal(first.weight, built(reference, seed=6).weight)


def test_the_generator_goes_back_where_it_raises(written: Written) -> None:
    reference = written("def make(): torch.rand(3); 1 / 0") + ":make"
    before = torch.get_rng_state()
    with pytest.raises(NormlabError, match="ZeroDivisionError"):
        built(reference)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def make(): raise OSError('no weights\\nat all')", r"\S+:make to build, got OSError: no weights; --debug"),
        ("def make(): return 3", "to return an nn.Module, got a int"),
        ("def make(): return nn.Linear", "to return an nn.Module, got a type"),
        ("def make(width): return nn.Linear(4, width)", "with its options, got none for width; give them as k=v"),
        ("def make(width=3): return nn.Linear(4, width)", r"option of model \S+, got 'widht'; did you mean width\?"),
        ("def other(): return nn.Linear(4, 3)", "'make' in .*, got no such name in .*; .*other"),
        ("def maker(): return nn.Linear(4, 3)", r"got no such name .*; did you mean maker\?"),
        ("make = 3", "a callable as a model, got .*, which is a int"),
        ("1 / 0", "to import, got ZeroDivisionError: division by zero"),
        ("def make(:", "to import, got SyntaxError"),
        ("import no_such_module_anywhere", "to import, got ModuleNotFoundError: No module named 'no_such_module"),
    ],
)
def test_anything_else_is_refused_in_one_line(body: str, message: str, written: Written) -> None:
    name = written(body)
    options = {"widht": 3} if "widht" in message else {}
    with pytest.raises(NormlabError, match=message) as caught:
        built(f"{name}:make", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "lennet",
            r"a known model, got 'lennet'; did you mean lenet\? there are deep, inception, lenet, mlp, "
            r"resnet8, resnet20, resnet56, or your own as pkg",
        ),
        (
            "resnet152",
            r"did you mean resnet\d+\? there are deep, inception, lenet, mlp, resnet8, resnet20, resnet56, or your own",
        ),
        (
            "no_such_module_anywhere:make",
            "no module named 'no_such_module_anywhere'; run from the folder that holds it",
        ),
        (":make", "as pkg.module:callable, got ':make'"),
        ("torch:", "as pkg.module:callable, got 'torch:'"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        find(name)

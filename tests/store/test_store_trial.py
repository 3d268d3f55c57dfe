import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import normlab
import records
from normlab.store import Recipe, trial, trial_id
from normlab.store.trial import reusable

# Of every field another value than the default.
CHANGED = {
    "model": "mlp",
    "model_options": {"activation": "relu"},
    "surgeries": ({"name": "swap", "source": "batch", "target": "none"},),
    "data": "digits",
    "train_examples": 1000,
    "validation": 5,
    "optimizer": "adamw",
    "lr": 0.5,
    "schedule": "cosine",
    "momentum": 0.8,
    "weight_decay": 1e-4,
    "decay_all": True,
    "batch_size": 128,
    "epochs": 3,
    "seed": 1,
    "evaluate": ("test",),
    "evaluate_epochs": False,
    "precise_examples": 500,
    "probes": ({"name": "fit", "every": 10},),
    "dtype": "float64",
    "lanes": False,
    "shares": (1, 2),
    "sync": False,
    "device": "cpu",
    "threads": 1,
}


def test_every_field_of_the_recipe_counts():
    assert set(CHANGED) == set(Recipe.model_fields)
    ids = {trial_id(Recipe(**{name: value})) for name, value in CHANGED.items()}
    assert len(ids | {trial_id(Recipe())}) == len(CHANGED) + 1


def test_sixteen_hex_digits_and_the_same_for_the_same():
    assert len(trial_id(Recipe())) == 16
    assert int(trial_id(Recipe()), 16) >= 0
    assert trial_id(Recipe(model_options={"a": 1, "b": 2})) == trial_id(Recipe(model_options={"b": 2, "a": 1}))
    assert trial_id(Recipe(model_options={"a": [1, 2]})) != trial_id(Recipe(model_options={"a": [2, 1]}))


def test_torchs_version_counts(monkeypatch):
    before, version = trial_id(Recipe()), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == "torch" else version(name))
    trial._version.cache_clear()
    try:
        assert trial_id(Recipe()) != before
    finally:
        trial._version.cache_clear()


def test_where_things_lie_and_where_one_stands_do_not_count(tmp_path, monkeypatch):
    before = trial_id(Recipe())
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "another"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert trial_id(Recipe()) == before


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    """The path of a module of the user's in the working directory, which a script has not on its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    path = tmp_path / "trial_users_own.py"
    path.write_text("def build(): ...\n")
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        {"model": "trial_users_own:build"},
        {"data": "trial_users_own:build"},
        {"surgeries": ({"name": "swap", "source": "batch", "target": "trial_users_own:Norm"},)},
        {"model_options": {"deep": [{"norm": "trial_users_own:Norm"}]}},
    ],
)
def test_the_source_of_what_the_user_named_counts(users_module, recipe):
    before = trial_id(Recipe(**recipe))
    assert trial_id(Recipe(**recipe)) == before
    users_module.write_text("def build(): ...  # another\n")
    changed = trial_id(Recipe(**recipe))
    assert changed != before
    assert trial_id(Recipe()) == trial_id(Recipe())
    users_module.unlink()
    assert trial_id(Recipe(**recipe)) not in (before, changed)


def test_the_users_source_counts_the_same_once_it_is_on_the_path(users_module, monkeypatch):
    before = trial_id(Recipe(model="trial_users_own:build"))
    monkeypatch.syspath_prepend(users_module.parent)
    assert trial_id(Recipe(model="trial_users_own:build")) == before


@pytest.mark.parametrize(
    "name", ["cuda:0", "a\0b:c", ".x:y", "__main__:build", "math:sin", "broken.sub:x", ":", "a:"]
)
def test_what_has_no_source_file_is_no_error(tmp_path, monkeypatch, name):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert trial_id(Recipe(model_options={"x": name})) == trial_id(Recipe(model_options={"x": name}))


def test_our_source_counts_where_it_can_change_a_number(tmp_path):
    """In a copy of the package every file is changed in turn."""
    package = Path(normlab.__file__).parent
    shutil.copytree(package, tmp_path / "normlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("another.cpp", "another.h"):
        (tmp_path / "normlab" / "kernels" / name).write_text("")
    code = """
import pathlib, sys
from normlab.store import Recipe, trial, trial_id
from normlab.store.trial import reusable
package = pathlib.Path(sys.argv[1])
assert pathlib.Path(trial.__file__).is_relative_to(package)
before = trial_id(Recipe())
for path in sorted(path for path in package.rglob("*") if path.suffix in (".py", ".cpp", ".h")):
    path.write_text(path.read_text() + ("# changed\\n" if path.suffix == ".py" else "// changed\\n"))
    trial._source_hash.cache_clear()
    after = trial_id(Recipe())
    print(path.relative_to(package).parts[0], after != before)
    before = after
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "normlab")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    counts = {tuple(line.split()) for line in done.stdout.splitlines()}
    files = {"__init__.py", "__main__.py", "notebook.py"}
    silent = files | {"bench", "cli", "explain", "lab", "report", "rules", "store", "studies", "testing"}
    rooms = {path.name for path in package.iterdir()} - {"__pycache__", "py.typed"}
    assert counts == {(name, str(name not in silent)) for name in rooms}


def test_a_record_names_versions_and_a_machine_without_naming_its_owner():
    assert set(trial.versions()) == {"python", "normlab", "torch", "numpy"}
    assert set(trial.machine()) == {"system", "architecture", "processor", "cores"}
    assert all(trial.machine().values())


def test_what_can_be_used_again(tmp_path, monkeypatch):
    (tmp_path / "mine_to_use.py").write_text("build = print\n")
    monkeypatch.chdir(tmp_path)
    made = records.record(model="mine_to_use:build")
    made = made.model_copy(update={"trial": trial_id(made.recipe)})
    assert reusable(made) is True
    assert reusable(made.model_copy(update={"trial": "0" * 16})) is False, "another version made it"
    (tmp_path / "mine_to_use.py").write_text("build = sum\n")
    assert reusable(made) is False
    (tmp_path / "mine_to_use.py").unlink()
    assert reusable(made) is None, "from another folder nobody can tell"

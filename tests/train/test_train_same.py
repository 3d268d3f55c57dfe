"""The same recipe gives the same result, bit for bit, whatever surrounds it; and it leaves its surroundings alone."""

import random

import pytest
import torch

from normlab.store import Recipe
from normlab.train import Observer, train
from normlab.train.device import threads
from normlab.train.progress import Sums

LENET = {"data": "digits", "train_examples": 200, "batch_size": 50, "epochs": 2, "lr": 0.1}
USERS = {"data": "users_zoo:tensors", "batch_size": 32, "epochs": 2, "lr": 0.05}


def perturb() -> None:
    """What may differ between two processes."""
    torch.manual_seed(random.getrandbits(63))
    torch.rand(random.randrange(50))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_twice_the_same_for_every_optimizer_and_dtype(optimizer: str, dtype: str, dropout: float) -> None:
    recipe = Recipe(**LENET, optimizer=optimizer, dtype=dtype, model_options={"dropout": dropout})
    first = train(recipe)
    perturb()
    again = train(recipe)
    assert again.result == first.result
    assert again.trial == first.trial
    assert first.result.nonfinite is None


MODELS = ["plain", "Dropouts", "lazy", "book", "Remembering", "Frozen", "Drawing", "Caching", "Recomputed"]
DATA = ["shuffled", "shuffled_by_its_own", "drawn_with_replacement", "augmented", "streamed"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_twice_the_same_for_every_model(model: str, dtype: str) -> None:
    recipe = Recipe(**USERS, model=f"users_zoo:{model}", dtype=dtype)
    first = train(recipe)
    perturb()
    assert train(recipe).result == first.result
    assert train(recipe.replace(seed=1)).result != first.result


@pytest.mark.parametrize("data", DATA)
def test_twice_the_same_for_every_loader(data: str) -> None:
    recipe = Recipe(**USERS, model="users_zoo:Dropouts").replace(data=f"users_zoo:{data}")
    first = train(recipe)
    perturb()
    assert train(recipe).result == first.result
    assert train(recipe.replace(seed=1)).result != first.result


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"lr": 0.11}, {"batch_size": 49}, {"optimizer": "momentum"}, {"schedule": "cosine"},
        {"weight_decay": 0.1}, {"dtype": "float64"}, {"train_examples": 199}, {"model_options": {"dropout": 0.3}},
        {"model_options": {"init": "xavier"}}, {"model_options": {"norms": "12"}}, {"validation": 10},
    ],
    ids=str,
)  # fmt: skip
def test_another_recipe_is_another_result(change: dict) -> None:
    recipe = Recipe(**LENET)
    assert train(recipe.replace(**change)).result.epochs != train(recipe).result.epochs


def test_recomputation_does_not_change_the_gradient() -> None:
    recipe = Recipe(**USERS, model="users_zoo:Recomputed")
    assert train(recipe).result == train(recipe.replace(model_options={"recompute": False})).result


def test_the_parts_without_norm_draw_the_same_initial_weights() -> None:
    """Two arms see the same examples in the same order from the same weights: the first loss shows it."""
    recipe = Recipe(**LENET | {"batch_size": 200, "epochs": 1})
    lean = recipe.replace(model_options={"bias": False})
    assert train(lean).last.train_loss == pytest.approx(train(recipe).last.train_loss, rel=1e-5)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_the_generator_and_the_threads_go_back(fails: bool, count: int) -> None:
    class Failing(Observer):
        def step(self, sums: Sums) -> None:
            assert torch.get_num_threads() == 2
            if fails:
                raise OSError

    with threads(count):
        torch.manual_seed(8)
        before = torch.get_rng_state()
        try:
            train(Recipe(**USERS, model="users_zoo:Dropouts", threads=2), observer=Failing())
        except OSError:
            assert fails
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == count


def test_threads_stay_as_they_are_where_none_are_asked_for() -> None:
    with threads(2):
        assert train(Recipe(**USERS, model="users_zoo:plain")).recipe.threads == 2

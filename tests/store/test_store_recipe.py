import pytest
from hypothesis import given
from pydantic import ValidationError

import records
from normlab.store import Recipe, Result, Timing


def test_the_defaults_are_the_threads_run():
    recipe = Recipe()
    assert (recipe.model, recipe.data, recipe.optimizer) == ("lenet", "fashion-mnist", "sgd")
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.train_examples) == (1.0, 256, 10, None)


@given(records.recipes)
def test_a_recipe_survives_json(recipe):
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


NAN, INF, HALF_A_PAIR = float("nan"), float("inf"), "\udcff"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("data", ""),
        ("device", ""),
        ("model", HALF_A_PAIR),
        ("model_options", {"eps": NAN}),
        ("model_options", {"nested": [{"deep": INF}]}),
        ("model_options", {"text": HALF_A_PAIR}),
        ("model_options", {HALF_A_PAIR: 1}),
        ("model_options", {"layer": object()}),
        ("surgeries", [{"name": "swap", "eps": -INF}]),
        ("surgeries", "swap"),
        ("train_examples", 0),
        ("validation", -1),
        ("optimizer", "sdg"),
        ("schedule", "linear"),
        ("dtype", "float16"),
        *(("lr", bad) for bad in (0, -1, NAN, INF, "abc", None)),
        *(("momentum", bad) for bad in (-0.1, 1, NAN)),
        *(("weight_decay", bad) for bad in (-1e-9, NAN, INF)),
        *(("batch_size", bad) for bad in (0, -1, 1.5, "x")),
        *(("epochs", bad) for bad in (0, 2.5)),
        *(("seed", bad) for bad in (-1, 2**63)),
        *(("threads", bad) for bad in (0, 1025)),
        ("learning_rate", 1.0),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(field, value):
    with pytest.raises(ValidationError) as raised:
        Recipe(**{field: value})
    assert [problem["loc"][0] for problem in raised.value.errors()] == [field]


def test_every_wrong_field_at_once():
    with pytest.raises(ValidationError) as raised:
        Recipe(lr=-1, batch_size=0)
    assert raised.value.error_count() == 2


def test_a_recipe_is_frozen_and_replace_validates():
    recipe = Recipe()
    with pytest.raises(ValidationError):
        recipe.lr = 2.0
    assert recipe.replace(lr=0.5) == Recipe(lr=0.5)
    with pytest.raises(ValidationError):
        recipe.replace(lr=0)


def test_a_record_holds_no_number_that_json_has_not():
    with pytest.raises(ValidationError):
        Timing(examples_per_s=NAN, seconds=1.0, device="cpu")


def test_a_result_has_an_epoch():
    with pytest.raises(ValidationError):
        Result(epochs=(), precise=None, nonfinite=None, nonfinite_batches=0, parameters=1)

"""A study asked of somebody else's model, data or norm: it is made to fit, or refused in one clear sentence."""

import dataclasses
from typing import ClassVar

import lab_zoo
import pytest

from normlab import data, studies
from normlab.errors import NormlabError
from normlab.lab import Arm, Size
from normlab.lab.ask import Ask, ask, fit_to, rehearse
from normlab.lab.cost import cost
from normlab.lab.rules import about, answered, below, equivalent, holm, main_effect, superior
from normlab.lab.verdict import setting
from normlab.store import Recipe
from normlab.surgery import freeze, keep, remove_bias, reorder, swap
from normlab.surgery.find import batch_norms
from normlab.train import train
from normlab.train.prepare import prepare

BASE = Recipe(model="mlp", model_options={"widths": [6]}, lr=0.1, threads=1, device="cpu", batch_size=64, epochs=1)
QUICK = BASE.replace(validation=5_000, train_examples=20_000, precise_examples=2_000)

# Data, the recipe asked for, and what of it fits: validation, train_examples, batch_size, epochs, precise_examples.
FITS = {
    "fifty, nothing beside": ("fifty", QUICK, (5, None, 45, 50, 45)),
    "fifty, with a test split": ("with_test", QUICK, (5, None, 45, 50, 45)),
    "fifty, with a validation split": ("validating", QUICK, (0, None, 50, 50, 50)),
    "fifty, no validation asked for": ("with_test", BASE, (0, None, 50, 1, None)),
    "no test and none held out": ("fifty", BASE, (5, None, 45, 1, None)),
    "a last batch of one": ("fifty_one", BASE.replace(batch_size=7), (0, 56, 7, 1, None)),
    "all but the last batch of one": ("with_test", BASE.replace(batch_size=49), (0, 49, 49, 1, None)),
    "fewer than there are": ("with_test", BASE.replace(train_examples=20, batch_size=8), (0, 20, 8, 1, None)),
    "half as many twice as often": ("with_test", BASE.replace(train_examples=100, epochs=3), (0, None, 50, 6, None)),
    "loaders": ("loaders", QUICK, (0, None, 64, 1, None)),
    "loaders, nothing held out": ("loaders", BASE.replace(precise_examples=30), (0, None, 64, 1, None)),
}


@pytest.mark.parametrize("case", FITS)
def test_a_recipe_is_made_to_fit(case):
    name, recipe, fits = FITS[case]
    name = f"lab_zoo:{name}"
    fitted = fit_to(recipe.replace(data=name), data.load(name))
    names = ("validation", "train_examples", "batch_size", "epochs", "precise_examples")
    assert tuple(getattr(fitted, each) for each in names) == fits
    record = train(fitted.replace(epochs=1))
    assert record.result.precise.train_accuracy is not None


@pytest.mark.parametrize("count", [251, 252])
def test_no_number_of_examples_leaves_one_alone_when_statistics_are_recomputed(count):
    recipe = BASE.replace(data="digits-8x8", train_examples=count, batch_size=50)
    assert train(fit_to(recipe, data.load("digits-8x8"))).result.precise.train_accuracy > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one_class", "expected at least two classes in lab_zoo:one_class, got 1; every model is right on one"),
        ("nine", "expected at least ten training examples in lab_zoo:nine, got 9"),
    ],
)
def test_data_that_cannot_serve(name, message):
    with pytest.raises(NormlabError, match=message):
        ask("mine", lab_zoo.study(), size="quick", data_name=f"lab_zoo:{name}")


def test_a_loader_whose_last_batch_is_one_example_is_refused_before_the_first_trial():
    asked = ask("mine", lab_zoo.study(), size="quick", data_name="lab_zoo:last_of_one")
    with pytest.raises(NormlabError, match=r"a batch of shape \(1, 1, 8, 8\), .*more than 1 value per channel"):
        rehearse(asked)


def test_a_loader_where_batch_sizes_are_compared_is_refused():
    with pytest.raises(NormlabError, match="which compares batch sizes, got a DataLoader, whose batches"):
        ask("batch-size", studies.find("batch-size"), size="quick", data_name="lab_zoo:loaders")
    assert ask("bias", studies.find("bias"), size="quick", data_name="lab_zoo:loaders")


def test_what_a_loader_costs_is_what_it_gives():
    recipe = BASE.replace(evaluate=("train",))
    streamed, there = (data.load(f"lab_zoo:{name}") for name in ("streamed", "loaders"))
    assert cost(recipe, streamed) == cost(recipe, there) > 0


def names_of(recipe):
    return [type(module).__name__ for module in prepare(recipe, lambda _: None)[1].modules()]


def test_what_is_left_of_the_batch_norms_is_swapped():
    arms = {
        "all": Arm(),
        "first": Arm(keep(positions=(0,))),
        "none": Arm(keep(stages=(), of=2)),
        "off": Arm(swap("batch", "none")),
    }
    study = lab_zoo.study(
        arms=arms | {"BN": Arm(remove_bias())}, recipe=lab_zoo.RECIPE.replace(model_options={"widths": [8, 8, 8]})
    )
    asked = ask("mine", study, size="quick", norm="lab_zoo:Shift")
    rehearse(asked)
    shifts = {name: names_of(recipe).count("Shift") for name, recipe in asked.arms.items()}
    assert shifts == {"all": 3, "first": 1, "none": 0, "off": 0, "BN": 3}
    assert not any("BatchNorm1d" in names_of(recipe) for recipe in asked.arms.values())
    assert asked.key != ask("mine", study, size="quick").key


def test_a_norm_without_the_parts_that_a_study_freezes():
    with pytest.raises(NormlabError, match=r"batch norm, whose parts this study freezes.*leave out --norm"):
        _ = ask("averages", studies.find("averages"), size="quick", data_name="digits", norm="none").arms


def test_placement_takes_another_norm():
    asked = ask("placement", studies.find("placement"), size="quick", data_name="digits", norm="lab_zoo:Shift")
    rehearse(asked)


def test_a_model_without_batch_norms():
    asked = ask("mine", lab_zoo.study(), size="quick", model="lab_zoo:without_norms")
    with pytest.raises(
        NormlabError, match="expected a model with batch norms for study mine, got none in lab_zoo:without"
    ):
        rehearse(asked)


def test_a_model_with_53_norms():
    asked = ask(
        "placement", studies.find("placement"), size="standard", model="lab_zoo:many_norms", data_name="digits-8x8"
    )
    rehearse(asked)
    counts = {name: len(batch_norms(prepare(recipe, lambda _: None)[1])) for name, recipe in asked.arms.items()}
    assert counts["all"] == 53
    assert counts["none"] == 0
    assert sum(counts[name] for name in "1234") == 53
    assert counts["12"] == counts["1"] + counts["2"]


def test_a_study_that_compares_models_takes_no_other():
    with pytest.raises(NormlabError, match="expected a study that can be asked of any model, got largest-rate"):
        ask("largest-rate", studies.find("largest-rate"), size="quick", model="mlp", data_name="digits")


def test_arms_of_another_model_are_left_out_where_the_user_names_one():
    other = Arm(model="mlp", data="digits-8x8")
    study = lab_zoo.study(
        arms={"BN": Arm(), "none": Arm(swap("batch", "none")), "MLP": other},
        rules=(equivalent("accuracy", "BN", "none", 0.05), superior("accuracy", "MLP", "BN"), below("accuracy", 1)),
        beside=(superior("accuracy", "MLP", "none"),),
    )
    assert [*ask("mine", study, size="quick").arms] == ["BN", "none", "MLP"]
    asked = ask("mine", study, size="quick", model="lab_zoo:many_norms")
    assert [*asked.arms] == ["BN", "none"]
    assert asked.rules == tuple(map(str, (study.rules[0], study.rules[2])))
    alone = dataclasses.replace(study, rules=study.rules[1:2])
    with pytest.raises(NormlabError, match="a study that can be asked of any model, got mine"):
        ask("mine", alone, size="quick", model="lab_zoo:many_norms")


@pytest.mark.parametrize(
    "surgery", [remove_bias(), reorder("activation", "dropout"), keep(stages=(3,), of=9), freeze("gamma")], ids=str
)
def test_an_arm_whose_surgery_does_not_apply_is_named(surgery):
    study = lab_zoo.study(arms={"BN": Arm(), "none": Arm(swap("batch", "none"), surgery)})
    with pytest.raises(NormlabError, match=r"^arm 'none' of study mine: expected "):
        rehearse(ask("mine", study, size="quick"))


def test_options_go_to_the_model_and_wrong_ones_are_refused():
    asked = ask("mine", lab_zoo.study(), size="quick", model_options={"activation": "tanh"})
    assert asked.base.model_options == {"widths": [8], "activation": "tanh"}
    assert ask("mine", lab_zoo.study(), size="quick", model="lab_zoo:many_norms").base.model_options == {}
    with pytest.raises(NormlabError, match="did you mean activation"):
        ask("mine", lab_zoo.study(), size="quick", model_options={"activasion": "tanh"})
    with pytest.raises(NormlabError, match="did you mean quick"):
        ask("mine", lab_zoo.study(), size="quik")


def test_the_key_is_that_of_the_question_whatever_its_seeds():
    asked = [ask("mine", lab_zoo.study(), size="quick", seeds=seeds) for seeds in (2, 5)]
    assert isinstance(asked[0], Ask)
    assert asked[0].key == asked[1].key
    assert len({asked[0].key, *(ask("mine", lab_zoo.study(), size="quick", **how).key for how in (
        {"model": "lenet", "data_name": "digits"}, {"data_name": "digits"}, {"norm": "none"}))}) == 4  # fmt: skip


class TestAStudyWithASmallSize:
    """Of three arms, of which quick has two."""

    rule = staticmethod(lambda other: superior("accuracy", "BN", other, -1))
    arms: ClassVar = {"BN": Arm(), "none": Arm(swap("batch", "none")), "ln": Arm(swap("batch", "layer"))}

    def study(self, *own):
        arms = self.arms | {name: Arm(swap("batch", name)) for name in own}
        others = [name for name in arms if name != "BN"]
        return lab_zoo.study(
            arms=arms,
            rules=(holm(tuple(map(self.rule, others))),),
            beside=(self.rule("ln"), self.rule("none"), answered("accuracy")),
            sizes={"quick": Size(2, {}, arms=("BN", "none", *own)), "standard": Size(2, {})},
            with_norm=self.study,
        )

    def test_it_is_asked_of_the_arms_of_its_size(self):
        asked = ask("mine", self.study(), size="quick")
        assert asked.arms.keys() == {"BN", "none"}
        assert asked.study.rules == [holm((self.rule("none"),))]
        assert asked.study.beside == [self.rule("none"), answered("accuracy")]
        assert ask("mine", self.study(), size="standard").arms.keys() == self.arms.keys()

    def test_a_norm_of_the_users_has_an_arm_of_its_own(self):
        asked = ask("mine", self.study(), size="quick", norm="lab_zoo:Shift")
        rehearse(asked)
        shifts = {name: names_of(recipe).count("Shift") for name, recipe in asked.arms.items()}
        assert shifts == {"BN": 0, "none": 0, "lab_zoo:Shift": 1}
        assert asked.study.rules == [holm((self.rule("none"), self.rule("lab_zoo:Shift")))]
        assert asked.key != ask("mine", self.study(), size="quick").key
        assert "Shift" not in setting(asked)


def test_a_rule_of_a_size_is_about_its_arms():
    one, other = superior("m", "a", "b"), superior("m", "a", "c")
    assert about(one, ("a", "b")) == one
    assert about(one, ("a",)) is None
    assert about(holm((one, other)), ("a", "c")) == holm((other,))
    assert about(holm((one, other)), ("c",)) is None


def test_a_main_effect_is_asked_of_the_fraction_that_is_there():
    whole = main_effect("m", "x", ("x", "xy"), ("none", "y"), 0.5)
    assert about(whole, ("none", "xy")) == main_effect("m", "x", ("xy",), ("none",), 0.5)
    assert about(whole, ("x", "xy")) is None
    assert about(holm((whole,)), ("none", "xy")).rules == (about(whole, ("none", "xy")),)

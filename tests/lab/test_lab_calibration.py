"""Studies whose arms are the same: how often their interval holds the truth, over real trainings."""

import pytest
from outcomes import carry_out

from normlab.lab import Arm, Size, Study, accuracy
from normlab.lab.judge import cells_of, results_of
from normlab.lab.rules import superior
from normlab.store import Recipe
from normlab.train import train
from normlab.train.prepare import dataset_of

STUDIES, SEEDS = 200, 3
RECIPE = Recipe(
    model="mlp",
    model_options={"widths": [12], "activation": "relu"},
    data="digits-8x8",
    train_examples=100,
    batch_size=20,
    epochs=2,
    lr=0.3,
    precise_examples=50,
    evaluate=("train", "test"),
    threads=1,
    device="cpu",
)
STUDY = Study(
    question="Are two nets that are the same the same?",
    claim="No.",
    source="this test",
    recipe=RECIPE,
    arms={"one": Arm(), "other": Arm(batch_size=20, momentum=0.5)},  # which plain SGD does not look at
    measures=(accuracy,),
    rules=(superior("accuracy", "one", "other"),),
    answers={},
    sizes={"quick": Size(SEEDS, {})},
)


@pytest.mark.slow
def test_the_interval_holds_zero_in_ninety_five_of_a_hundred_studies():
    arms = {name: arm.recipe(RECIPE) for name, arm in STUDY.arms.items()}
    held, worse = 0, 0
    dataset = dataset_of(RECIPE, print)

    for number in range(STUDIES):
        seeds = range(SEEDS * number, SEEDS * (number + 1))

        def outcome(trial):
            # The other arm's seeds are others: nothing is shared but the question.
            seed = trial.recipe.seed + (10_000 if trial.arm == "other" else 0)
            return train(trial.recipe.replace(seed=seed), dataset_of=lambda *_: dataset)

        found, _ = carry_out(STUDY.plan, arms, seeds, outcome)
        (finding,) = results_of(STUDY, cells_of(STUDY, arms, seeds, found)).findings
        assert finding.n == SEEDS
        held += finding.low <= 0 <= finding.high
        worse += finding.effect < 0
    print(f"the interval held zero in {held} of {STUDIES} studies; {worse} effects were negative")
    assert 0.91 * STUDIES <= held <= 0.98 * STUDIES
    assert 0.35 * STUDIES <= worse <= 0.65 * STUDIES

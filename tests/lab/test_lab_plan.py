"""Plans end for whatever comes, ask nothing twice, and find what they look for."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import BASE, carry_out, trained

from normlab.lab.cell import unusable
from normlab.lab.plan import STEP, before_training, bisection, every_arm, every_rate, floor_of, tuned

few = settings(max_examples=25, deadline=None)

ARMS = {"a": BASE, "b": BASE.replace(batch_size=32)}
GRID = (10**-1.5, 0.1, 10**-0.5, 1.0)
PLANS = {
    "every arm": every_arm,
    "every rate": every_rate(GRID),
    "tuned": tuned(GRID),
    "tuned by one seed": tuned((0.1,), 1),
    "bisection": bisection(1.0),
    "bisection, three halvings": bisection(0.3, halvings=3, lowest=0.01, highest=50.0),
}
SHARES = st.none() | st.floats(0, 1)
each_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def anything(data):
    """An outcome for a trial: a failure, a loss that is not finite, any accuracy."""
    return lambda trial: data.draw(st.just("it raised") | st.builds(trained, st.just(trial.recipe), SHARES, SHARES))


@each_plan
@few
@given(st.data(), st.integers(1, 4))
def test_it_ends_for_any_outcomes_and_asks_nothing_twice(plan, data, seeds):
    found, trials = carry_out(plan, ARMS, range(seeds), anything(data))
    searched = [trial.key for trial in trials if not trial.decides]
    decided = [trial.key for trial in trials if trial.decides]
    assert len(searched) == len(set(searched))
    assert len(decided) == len(set(decided))
    assert found.keys() == set(searched) | set(decided)
    assert {(trial.arm, trial.recipe.seed) for trial in trials} == {(arm, s) for arm in ARMS for s in range(seeds)}


@each_plan
@few
@given(st.data())
def test_a_search_never_sees_test_data_and_what_decides_has_the_arms_own_probes(plan, data):
    for trial in carry_out(plan, ARMS, range(2), anything(data))[1]:
        if trial.decides and not isinstance(plan, bisection):
            assert trial.recipe.evaluate == BASE.evaluate
            assert trial.recipe.probes == BASE.probes
        else:
            assert "test" not in trial.recipe.evaluate
            assert not trial.recipe.evaluate_epochs
            assert not trial.recipe.probes or isinstance(plan, bisection)
        assert trial.recipe.batch_size == ARMS[trial.arm].batch_size


@pytest.mark.parametrize(
    ("plan", "count"),
    [
        (every_arm, 6),
        (before_training, 6),
        (every_rate(GRID), 24),
        (tuned(GRID), 22),
        (bisection(1.0), 24),
    ],
)
def test_what_it_expects(plan, count):
    assert plan.expected(2, 3) == count
    if not isinstance(plan, bisection):  # whose number hangs on the outcomes
        assert len(carry_out(plan, ARMS, range(3), lambda trial: trained(trial.recipe))[0]) == count


def test_before_training_asks_what_every_arm_does_and_judges_none():
    (asked, trials), (usual, _) = (
        carry_out(plan, ARMS, range(2), lambda trial: trained(trial.recipe)) for plan in (before_training, every_arm)
    )
    assert asked.keys() == usual.keys()
    assert not any(trial.decides for trial in trials)


def test_more_seeds_want_what_fewer_wanted():
    for plan in PLANS.values():
        few, many = (
            carry_out(plan, ARMS, range(count), lambda trial: trained(trial.recipe, 1 / (1 + trial.recipe.lr), 0.5))[
                0
            ]
            for count in (2, 4)
        )
        assert few.keys() <= many.keys()


@few
@given(st.dictionaries(st.tuples(st.sampled_from(GRID), st.sampled_from("ab"), st.integers(0, 1)), SHARES))
def test_tuned_takes_the_best_mean_of_validation_among_the_usable(told):
    """`told` is the validation accuracy; None is a loss that was not finite, and what is not told gets .3."""

    def share(rate, arm, seed):
        return told.get((rate, arm, seed), 0.3)

    def outcome(trial):
        rate = min(GRID, key=lambda each: abs(each - trial.recipe.lr))
        value = share(rate, "ab"[trial.recipe.batch_size == 32], trial.recipe.seed) if not trial.decides else 0.5
        return trained(trial.recipe, None if value is None else 0.9, value)

    _, trials = carry_out(tuned(GRID), ARMS, range(3), outcome)
    for arm in ARMS:
        means = {}
        for rate in GRID:
            values = [share(rate, arm, seed) for seed in range(2)]
            if None not in values:
                means[rate] = sum(values) / 2
        best = min((rate for rate in means if means[rate] == max(means.values())), default=min(GRID))
        assert {trial.recipe.lr for trial in trials if trial.arm == arm and trial.decides} == {best}


def test_tuned_falls_back_on_training_accuracy_where_nothing_validates():
    _, trials = carry_out(tuned(GRID), ARMS, range(2), lambda trial: trained(trial.recipe, 0.5 + trial.recipe.lr / 3))
    assert {trial.recipe.lr for trial in trials if trial.decides} == {max(GRID)}


@few
@given(st.floats(-2.4, 3.4), st.integers(0, 6), st.sampled_from([0.05, 1.0, 3.7]))
def test_bisection_brackets_the_edge(edge, halvings, start):
    plan = bisection(start, halvings)
    edge = 10**edge
    found, trials = carry_out(
        plan, {"a": BASE}, [7], lambda trial: trained(trial.recipe, 0.9 if trial.recipe.lr <= edge else 0.1)
    )
    # The first trial sets the floor: where it is unusable itself the floor is that of chance.
    floor = floor_of(plan, {"a": BASE}, [7], found)
    rates = {trial.recipe.lr: unusable(found[trial.key], floor) is None for trial in trials}
    assert min(rates) >= plan.lowest
    assert max(rates) <= plan.highest
    if start > edge:
        return
    low, high = max(r for r, good in rates.items() if good), min(r for r, good in rates.items() if not good)
    assert low <= edge * (1 + 1e-5)
    assert high >= edge * (1 - 1e-5)
    assert high / low <= STEP ** (0.5**halvings) * (1 + 1e-4)


def test_bisection_goes_down_from_an_arm_that_does_not_train():
    arms = {"good": BASE, "bad": BASE.replace(batch_size=32)}

    def outcome(trial):
        fine = trial.recipe.batch_size != 32 or trial.recipe.lr <= 0.02
        return trained(trial.recipe, 0.9 if fine and trial.recipe.lr < 5 else 0.2)

    _, trials = carry_out(bisection(1.0), arms, [0], outcome)
    asked = {arm: [trial.recipe.lr for trial in trials if trial.arm == arm] for arm in arms}
    assert asked["bad"] == [1.0, 0.316228, 0.1, 0.0316228, 0.01, 0.0177828]
    assert asked["good"] == [1.0, 3.16228, 10.0, 5.62342]


@pytest.mark.parametrize(("accuracy", "last"), [(0.9, 1e4), (0.1, 1e-3)])
def test_bisection_asks_both_ends_of_its_range_and_nothing_beyond(accuracy, last):
    arms = {"other": BASE.replace(batch_size=32), "a": BASE}

    def outcome(trial):
        return trained(trial.recipe, 0.9 if trial.recipe.batch_size == 32 else accuracy)

    _, trials = carry_out(bisection(1.0), arms, [0], outcome)
    assert [trial.recipe.lr for trial in trials if trial.arm == "a"][-1] == last


@few
@given(st.lists(SHARES | st.just("it raised"), min_size=4, max_size=4))
def test_the_floor_is_half_the_best_of_the_first_wave(shares):
    told = iter(shares)

    def outcome(trial):
        share = next(told, 1.0)  # the second wave is better than all, and does not count
        return share if isinstance(share, str) else trained(trial.recipe, share, 0.5)

    plan, arms = tuned((0.1, 1.0)), {"a": BASE}
    found, _ = carry_out(plan, arms, range(2), outcome)
    best = max((share for share in shares if isinstance(share, float)), default=0.0)
    assert floor_of(plan, arms, range(2), found) == best / 2
    assert not math.isnan(best)

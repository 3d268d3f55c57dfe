"""From records to a word: what counts, what counts apart, and who decides."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import BASE, carry_out, trained
from scipy import stats

from normlab.errors import NormlabError
from normlab.lab import Arm, Size, Study, draw
from normlab.lab.ask import Ask
from normlab.lab.judge import WEAKNESS, cells_of, results_of, word_of
from normlab.lab.measures import accuracy, training_accuracy
from normlab.lab.plan import bisection, every_arm
from normlab.lab.rules import answered, below, equivalent, holm, superior
from normlab.lab.study import Results
from normlab.lab.verdict import verdict_of
from normlab.store import Finding

few = settings(max_examples=25, deadline=None)

SEEDS = range(6)


def study(rules=None, **changes):
    told = {
        "question": "?", "claim": "a {curly} claim", "source": "here", "recipe": BASE,
        "arms": {"a": Arm(), "b": Arm(batch_size=32)}, "measures": (accuracy,),
        "rules": (superior("accuracy", "a", "b"),) if rules is None else rules, "answers": {},
        "sizes": {"quick": Size(6, {})},
    }  # fmt: skip
    return Study(**told | changes)


def judged(asked, shares):
    """Arms `a` and `b` end at these accuracies by seed; None: not finite, text: failed."""
    arms = {name: arm.recipe(BASE) for name, arm in asked.arms.items()}

    def outcome(trial):
        share = shares[trial.arm][trial.recipe.seed]
        return share if isinstance(share, str) else trained(trial.recipe, share)

    found, _ = carry_out(asked.plan, arms, SEEDS, outcome)
    return found, results_of(asked, cells_of(asked, arms, SEEDS, found))


SHARE = st.none() | st.just("it raised") | st.floats(0.01, 1)


@few
@given(st.lists(SHARE, min_size=6, max_size=6), st.lists(SHARE, min_size=6, max_size=6))
def test_unusable_trials_count_apart_and_in_no_mean(a, b):
    _, results = judged(study(), {"a": a, "b": b})
    floor = max((x for x in a + b if isinstance(x, float)), default=0.0) / 2
    for arm, shares in (("a", a), ("b", b)):
        usable = {s: x for s, x in enumerate(shares) if isinstance(x, float) and x >= floor}
        assert results.outcomes["accuracy"][arm] == usable
        assert results.unusable[arm] == 6 - len(usable)
        why = {cell.seed: cell.why_unusable for cell in results.cells if cell.arm == arm}
        for seed, share in enumerate(shares):
            expected = "failed: it raised" if isinstance(share, str) else "not finite" if share is None else "below"
            assert (why[seed] is None) if seed in usable else expected in why[seed]


@few
@given(st.lists(st.floats(0.5, 1), min_size=6, max_size=6), st.lists(st.floats(0.5, 1), min_size=6, max_size=6))
def test_the_interval_is_scipys(a, b):
    (found,) = judged(study(), {"a": a, "b": b})[1].findings
    reference = stats.ttest_rel(a, b)
    if not math.isfinite(reference.pvalue) or found.high - found.low < 1e-9:
        return
    low, high = reference.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, reference.pvalue), rel=1e-6, abs=1e-9)
    assert found.word == ("supported" if low > 0 else "contradicted" if high < 0 else "inconclusive")


def naive_holm(ps, alpha=0.05):
    """As statsmodels' multipletests(method="holm") does it."""
    order, rejected = sorted(range(len(ps)), key=ps.__getitem__), [False] * len(ps)
    for rank, index in enumerate(order):
        if ps[index] > alpha / (len(ps) - rank):
            break
        rejected[index] = True
    return rejected


@few
@given(st.lists(st.lists(st.floats(-1, 1), min_size=5, max_size=5), min_size=1, max_size=6))
def test_holm_rejects_what_its_twin_rejects(columns):
    outcomes = {"m": {f"arm{i}": dict(enumerate(values)) for i, values in enumerate(columns)}}
    outcomes["m"]["zero"] = dict.fromkeys(range(5), 0.0)
    ps = [stats.ttest_1samp(values, 0.0).pvalue if len(set(values)) > 1 else math.nan for values in columns]
    if any(not math.isfinite(p) for p in ps):
        return
    rules = holm(tuple(superior("m", f"arm{i}", "zero") for i in range(len(columns))))
    assert [found.word != "inconclusive" for found in rules(outcomes)] == naive_holm(ps)


def test_holm_keeps_a_sure_contradiction_of_an_equivalence_beside_one_that_is_not_decided():
    outcomes = {"m": {"zero": dict.fromkeys(range(5), 0.0), "far": dict(enumerate((3.0, 3.1, 2.9, 3.0, 3.05))),
                      "noisy": dict(enumerate((-4.0, 4.0, 0.5, -2.0, 2.5)))}}  # fmt: skip
    rule = holm((equivalent("m", "far", "zero", 0.5), equivalent("m", "noisy", "zero", 0.5)))
    assert [found.word for found in rule(outcomes)] == ["contradicted", "inconclusive"]


def finding(word, beside=False):
    return Finding(rule="r", measure="m", word=word, n=2, effect=0, low=0, high=0, p=1, beside=beside)


@few
@given(st.lists(st.sampled_from(WEAKNESS), min_size=1), st.lists(st.sampled_from(WEAKNESS)))
def test_the_weakest_word_decides_and_what_stands_beside_never(words, beside):
    findings = [finding(word) for word in words] + [finding(word, beside=True) for word in beside]
    word = word_of(findings)
    assert word in words
    assert all(WEAKNESS.index(word) <= WEAKNESS.index(other) for other in words)


def test_beside_does_not_decide_the_verdict():
    a, b = [0.9, 0.91, 0.9, 0.89, 0.9, 0.9], [0.7, 0.71, 0.69, 0.7, 0.7, 0.7]
    asked = study(beside=(superior("accuracy", "b", "a"),), answers={"supported": "{effect} {low} {n}"})
    verdict = told(asked, {"a": a, "b": b})
    assert [(f.word, f.beside) for f in verdict.findings] == [("supported", False), ("contradicted", True)]
    assert verdict.word == "supported"
    assert verdict.sentence == "20.00 points 19.34 6"
    assert not verdict.deciding.beside


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ([0.75], [0.5], "It is 25.00 points (no interval, n = 1)."),
        ([0.75], ["it raised"], "No answer: no seed has a usable trial in every arm that is compared."),
    ],
)
def test_few_seeds_are_answered_in_words(a, b, sentence):
    answers = {"inconclusive": "It is {effect} ({low} to {high}, n = {n})."}
    rest = ["it raised"] * (len(SEEDS) - 1)
    assert told(study(answers=answers), {"a": a + rest, "b": b + rest}).sentence == sentence


def told(asked, shares):
    found, _ = judged(asked, shares)
    ask = Ask("mine", asked, "quick", 6, BASE, None, "")
    return verdict_of(ask, found, lambda trial: trial.arm + str(trial.recipe.seed), ask.rules, {}, {}, {})


def test_nothing_usable_is_a_verdict_too():
    verdict = told(study(figures=(draw.points("accuracy"),)), {"a": ["it raised"] * 6, "b": [None] * 6})
    assert verdict.word == "inconclusive"
    assert verdict.sentence == "a {curly} claim"  # no template: it stands in for an answer
    assert verdict.figures == ()
    assert verdict.deciding.n == 0
    assert set(verdict.arms["b"].unusable) == set(SEEDS)
    assert verdict.arms["a"].trials == {seed: (f"a{seed}",) for seed in SEEDS}
    assert type(verdict).model_validate_json(verdict.model_dump_json()) == verdict


def test_a_search_is_judged_by_all_of_its_trials():
    asked = study((answered("training accuracy"),), measures=(training_accuracy,), plan=bisection(1.0))
    arms = {name: arm.recipe(BASE) for name, arm in asked.arms.items()}
    found, _ = carry_out(asked.plan, arms, SEEDS, lambda t: trained(t.recipe, 0.9 if t.recipe.lr < 2 else None))
    cells = cells_of(asked, arms, SEEDS, found)
    assert {(cell.record, cell.why_unusable, len(cell.records)) for cell in cells} == {(None, None, 3)}
    assert [sum(map(cell.usable, cell.records)) for cell in cells] == [2] * 12


def test_a_cell_sees_the_other_arms_with_its_seed_and_its_turn_of_the_clock():
    asked = study()
    arms = {name: arm.recipe(BASE) for name, arm in asked.arms.items()}
    found, _ = carry_out(every_arm, arms, SEEDS, lambda t: trained(t.recipe, 0.1 if t.recipe.seed == 2 else 0.9))
    for cell in cells_of(asked, arms, SEEDS, found, {"a": [1.0, 2.0]}):
        assert set(cell.beside) == (set() if cell.seed == 2 else {"a", "b"})
        assert all(record.recipe.seed == cell.seed for record in cell.beside.values())
        assert cell.step_seconds == ((1.0, 2.0)[cell.seed % 2] if cell.arm == "a" else None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": (superior("acuracy", "a", "b"),)}, "did you mean accuracy"),
        ({"rules": (superior("accuracy", "a", "c"),)}, r"arms of the study, got \['c'\]; there are a, b"),
        ({"beside": (below("acuracy", 1.0),)}, "did you mean accuracy"),
        ({"rules": ()}, "a rule"),
        ({"answers": {"supported": "{efect}"}}, "efect"),
        ({"answers": {"suported": "yes"}}, "did you mean supported"),
        ({"claim": 3}, "type str for question, claim and source of a study, got 3"),
        ({"recipe": {"model": "mlp"}}, "type Recipe for the recipe of a study"),
        ({"arms": {"a": 1, "b": 2}}, "type Arm for each arm of a study, got 1"),
        ({"measures": ("accuracy",)}, "type Measure for each measure of a study, got 'accuracy'"),
        ({"figures": ("accuracy",)}, "type Callable for each figure of a study"),
        ({"sizes": {"quick": {"epochs": 1}}}, "type Size for each size of a study"),
        ({"sizes": {"quick": Size(0, {})}}, "seeds of size quick as a whole number of at least 1, got 0"),
        ({"sizes": {"quick": Size(2, {"epohcs": 1})}}, "field of a recipe.*did you mean epochs"),
        ({"sizes": {"quick": Size(2, {"epochs": "x"})}}, "size quick that changes epochs: .*integer"),
    ],
)
def test_a_study_that_cannot_be_judged_is_refused_before_its_run(changes, message):
    with pytest.raises(NormlabError, match=message):
        study(**{"rules": (superior("accuracy", "a", "b"),)} | changes)


def test_arms_of_a_size_that_are_not_there_are_one_clear_sentence():
    with pytest.raises(NormlabError, match=r"arm of the study, got 'aa'; did you mean a\?"):
        study(rules=(superior("accuracy", "a", "b"),), sizes={"quick": Size(2, {}, ("aa",))}).at("quick")


def test_a_figure_of_a_measure_that_is_not_there_is_one_clear_sentence():
    results = Results([], {"accuracy": accuracy}, {}, [], {})
    for drawing in (draw.points("acuracy"), draw.effects("acuracy"), draw.against("accuracy", "acuracy", "title")):
        with pytest.raises(NormlabError, match="measure of the study, got 'acuracy'; did you mean accuracy"):
            drawing(results)


def test_an_arm_that_makes_no_recipe_is_one_clear_sentence():
    with pytest.raises(NormlabError, match=r"field of a recipe.*did you mean epochs"):
        Arm(epoch=3)
    with pytest.raises(NormlabError, match=r"lr: .*greater than 0"):
        Arm(lr=-1.0).recipe(BASE)

"""Rules at their boundary: 10,000 draws with the true effect there, and each wrong word in at most 5 % of them."""

import math

import numpy as np
import pytest
from scipy import stats

from normlab.lab import rules, statistics

DRAWS = 10_000


def outcomes(columns, seeds, measure="m"):
    return {measure: {arm: dict(zip(seeds, values, strict=True)) for arm, values in columns.items()}}


def rising(slope, noise):
    return {f"arm{k}": slope * k + noise[k] for k in range(4)}


# Rule, and the columns that put the truth on its boundary, from noise of shape (6, n).
BOUNDARIES = {
    "superior": (rules.superior("m", "a", "b", 0.5), lambda z: {"a": z[0] + 0.5 + z[2], "b": z[2]}),
    "equivalent above": (rules.equivalent("m", "a", "b", 0.5), lambda z: {"a": z[0] + 0.5 + z[2], "b": z[2]}),
    "equivalent below": (rules.equivalent("m", "a", "b", 0.5), lambda z: {"a": z[0] - 0.5 + z[2], "b": z[2]}),
    "ratio": (rules.ratio_at_least("m", "a", "b", 3), lambda z: {"a": 3 * np.exp(z[0] + z[2]), "b": np.exp(z[2])}),
    "interaction": (
        rules.interaction("m", "a", "b", "c", "d", 0.5),
        lambda z: {"a": z[0] + 0.5, "b": z[1], "c": z[2], "d": z[3]},
    ),
    "main effect": (
        rules.main_effect("m", "a's and c's", ("a", "c"), ("b", "d"), 0.5),
        lambda z: {"a": z[0] + 1, "b": z[1], "c": z[2], "d": z[3]},
    ),
    "monotone": (rules.monotone("m", ("arm0", "arm1", "arm2", "arm3")), lambda z: rising(0.0, z)),
    "near": (rules.near("m", "a", 2.0, 0.5), lambda z: {"a": z[0] + 2.5}),
    "below": (rules.below("m", 1.0), lambda z: {"a": z[0] + 1, "b": z[1] + 1, "c": z[2] + 1}),
    "above": (rules.above("m", 1.0), lambda z: {"a": z[0] + 1, "b": z[1] + 1, "c": z[2] + 1}),
}


@pytest.mark.parametrize("n", [5, 15])
@pytest.mark.parametrize("name", BOUNDARIES)
def test_each_wrong_word_at_the_boundary_in_at_most_five_percent(name, n, monkeypatch):
    # What no word depends on, and costs most.
    monkeypatch.setattr(statistics, "sign_flip", lambda _: None)
    monkeypatch.setattr(statistics, "detectable", lambda *_: math.inf)
    rule, columns = BOUNDARIES[name]
    noise = np.random.default_rng(0).normal(size=(DRAWS, 6, n))
    words = [rule(outcomes(columns(z), range(n)))[0].word for z in noise]
    # The number 5 % cannot exceed but for the draw itself, at one in a thousand.
    most = stats.binom.ppf(0.999, DRAWS, 0.05)
    assert words.count("supported") <= most
    assert words.count("contradicted") <= most


# Rule, columns over six seeds, expected word.
EXAMPLES = [
    (rules.superior("m", "a", "b"), {"a": [3, 4, 5, 4, 3, 5], "b": [1, 1, 2, 1, 1, 2]}, "supported"),
    (rules.superior("m", "b", "a"), {"a": [3, 4, 5, 4, 3, 5], "b": [1, 1, 2, 1, 1, 2]}, "contradicted"),
    (rules.superior("m", "a", "b", 2.5), {"a": [3, 4, 5, 4, 3, 5], "b": [1, 1, 2, 1, 1, 2]}, "inconclusive"),
    (rules.equivalent("m", "a", "b", 0.1), {"a": [1, 2, 3, 4, 5, 6], "b": [1, 2, 3, 4, 5, 6]}, "supported"),
    (rules.equivalent("m", "a", "b", 0.1), {"a": [2, 3, 4, 5, 6, 7], "b": [1, 2, 3, 4, 5, 6]}, "contradicted"),
    (rules.equivalent("m", "a", "b", 0.1), {"a": [1, 3, 3, 4, 4, 6], "b": [1, 2, 3, 4, 5, 6]}, "inconclusive"),
    (rules.ratio_at_least("m", "a", "b", 3), {"a": [10] * 6, "b": [1, 2, 1, 2, 1, 2]}, "supported"),
    (rules.ratio_at_least("m", "a", "b", 30), {"a": [10] * 6, "b": [1, 2, 1, 2, 1, 2]}, "contradicted"),
    (
        rules.interaction("m", "a", "b", "c", "d", 1),
        {"a": [9, 8, 9, 8, 9, 8], "b": [1] * 6, "c": [3] * 6, "d": [1] * 6},
        "supported",
    ),
    (
        rules.main_effect("m", "a's and b's", ("a", "b"), ("c", "d"), 2),
        {"a": [9, 8, 9, 8, 9, 8], "b": [1] * 6, "c": [3] * 6, "d": [1] * 6},
        "supported",
    ),
    (rules.monotone("m", ("a", "b", "c")), {"a": [1, 1, 2, 1, 1, 2], "b": [2] * 6, "c": [4] * 6}, "supported"),
    (rules.monotone("m", ("c", "b", "a")), {"a": [1, 1, 2, 1, 1, 2], "b": [2] * 6, "c": [4] * 6}, "contradicted"),
    (rules.near("m", "a", 1.467, 0.05), {"a": [1.46, 1.47, 1.465, 1.47, 1.46, 1.475]}, "supported"),
    (rules.near("m", "a", 1.2, 0.05), {"a": [1.46, 1.47, 1.465, 1.47, 1.46, 1.475]}, "contradicted"),
    (rules.below("m", 1e-6), {"a": [1e-9] * 6, "b": [2e-8, 1e-8] * 3}, "supported"),
    (rules.below("m", 1e-6), {"a": [1e-9] * 6, "b": [2e-5, 1e-5] * 3}, "contradicted"),
    (rules.above("m", 0.05), {"a": [0.9] * 6, "b": [0.07, 0.08] * 3}, "supported"),
    (rules.above("m", 0.05), {"a": [0.9] * 6, "b": [0.02, 0.03] * 3}, "contradicted"),
    (rules.above("m", 0.05), {"a": [0.9] * 6, "b": [0.02, 0.08] * 3}, "inconclusive"),
    (rules.above("m", 0.05, ("a",)), {"a": [0.9] * 6, "b": [0.02, 0.03] * 3}, "supported"),
    (rules.answered("m"), {"a": [1, 2, 3, 4, 5, 6]}, "answered"),
]


@pytest.mark.parametrize(("rule", "columns", "word"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_examples(rule, columns, word):
    (found,) = rule(outcomes(columns, range(6)))
    assert found.word == word
    assert found.low <= found.effect <= found.high
    assert found.rule == str(rule)


def test_only_seeds_that_both_arms_have_are_paired():
    values = {"a": {0: 5.0, 1: 6.0, 2: 7.0, 9: 100.0}, "b": {2: 1.0, 1: 2.0, 0: 3.0, 8: -100.0}}
    (found,) = rules.superior("m", "a", "b")({"m": values})
    assert (found.n, found.effect) == (3, 4.0)


@pytest.mark.parametrize(("rule", "columns", "_"), EXAMPLES, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("n", [0, 1])
def test_no_word_without_two_seeds(rule, columns, _, n):
    few = {arm: values[:n] for arm, values in columns.items()}
    assert rule(outcomes(few, range(n)))[0].word in ("inconclusive", "answered")


def test_above_is_below_in_a_mirror():
    columns = {"a": [3.0, 4.0, 5.0, 3.5], "b": [2.0, 2.5, 1.5, 2.25]}
    (found,) = rules.above("m", 1.0)(outcomes(columns, range(4)))
    mirrored = {arm: [-value for value in values] for arm, values in columns.items()}
    (other,) = rules.below("m", -1.0)(outcomes(mirrored, range(4)))
    assert found.effect == pytest.approx(2.0625)
    assert (found.word, found.effect, found.low, found.high, found.p) == (
        other.word, -other.effect, -other.high, -other.low, other.p)  # fmt: skip


def test_ranks_compare_arms():
    arms = [f"net{k}" for k in range(12)]
    predictor = {arm: {0: k + 0.1, 1: k - 0.1} for k, arm in enumerate(arms)}
    measure = {arm: {0: float(k**2), 1: k**2 + 1.0} for k, arm in enumerate(arms)}
    rule = rules.ranks("rate", "curvature", 0.5)
    (found,) = rule({"rate": measure, "curvature": predictor})
    assert (found.word, found.n, found.effect) == ("supported", 12, pytest.approx(1.0))
    shuffled = {arm: {0: float((7 * k) % 12)} for k, arm in enumerate(arms)}
    assert rule({"rate": shuffled, "curvature": predictor})[0].word == "inconclusive"
    reverse = {arm: {0: -float(k)} for k, arm in enumerate(arms)}
    assert rule({"rate": reverse, "curvature": predictor})[0].word == "contradicted"

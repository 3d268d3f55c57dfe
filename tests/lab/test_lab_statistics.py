"""The arithmetic of the verdicts against scipy's own tests, closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normlab.lab import statistics

numbers = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=3, max_size=12)
varied = numbers.filter(lambda values: np.std(values) > 1e-2)


@given(varied, st.floats(-2, 2))
def test_interval_and_t_test_are_scipys(values, center):
    found = statistics.interval(values)
    theirs = stats.ttest_1samp(values, center)
    low, high = theirs.confidence_interval(0.95)
    assert (found.n, found.mean) == (len(values), pytest.approx(np.mean(values)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert statistics.t_test(values, center) == pytest.approx(theirs.pvalue, abs=1e-12)


@given(varied, st.floats(0.01, 5))
def test_equivalence_is_the_larger_of_two_one_sided_tests(values, margin):
    upper = stats.ttest_1samp(values, margin, alternative="less").pvalue
    lower = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    assert statistics.equivalence_test(values, margin) == pytest.approx(max(upper, lower), abs=1e-12)


@given(st.lists(st.integers(-9, 9), min_size=6, max_size=9))
def test_sign_flip_counts_every_assignment_of_signs(values):
    assignments = itertools.product((1, -1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in assignments]
    expected = sum(total >= abs(sum(values)) for total in sums) / len(sums)
    assert statistics.sign_flip(values) == pytest.approx(expected)


def test_sign_flip_says_nothing_below_six_and_samples_beyond_sixteen():
    assert statistics.sign_flip([1.0] * 5) is None
    assert statistics.sign_flip([1.0] * 6) == pytest.approx(2 / 64)
    values = np.random.default_rng(0).normal(0.4, 1, 20)
    assert statistics.sign_flip(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.03)
    assert statistics.sign_flip(values) == statistics.sign_flip(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_of_bonferroni(ps):
    adjusted = statistics.holm(ps)
    for index, p in enumerate(ps):
        smaller = sorted(ps).index(p)
        own = [min(1.0, other * (len(ps) - rank)) for rank, other in enumerate(sorted(ps)) if rank <= smaller]
        assert adjusted[index] == pytest.approx(max(own))
    assert math.isnan(statistics.holm([0.01, math.nan])[1])
    assert statistics.holm([0.01, math.nan])[0] == pytest.approx(0.02)


@pytest.mark.parametrize("n", [5, 15])
def test_detectable_effects_are_detected_nine_times_of_ten(n):
    effect = statistics.detectable(2.0, n)
    draws = np.random.default_rng(0).normal(effect, 2.0, (20_000, n))
    share = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert share == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 40, 200])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_detectable_effects_have_the_power_that_the_noncentral_f_gives_them(n, power):
    effect = statistics.detectable(1.0, n, power=power)
    critical = stats.t.ppf(0.975, n - 1)
    assert stats.ncf.sf(critical**2, 1, n - 1, n * effect**2) == pytest.approx(power, abs=1e-4)


def test_spearman_covers_the_truth():
    rng, covered = np.random.default_rng(0), 0
    truth = 6 / math.pi * math.asin(0.7 / 2)  # of a bivariate normal with correlation .7
    for _ in range(2000):
        x, noise = rng.normal(size=(2, 20))
        _, low, high = statistics.spearman(x, 0.7 * x + math.sqrt(1 - 0.49) * noise)
        covered += low < truth < high
    assert 0.93 <= covered / 2000 <= 0.97
    assert statistics.spearman([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]) == pytest.approx((1, 1, 1))
    assert math.isnan(statistics.spearman([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])[0])


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_too_few_or_equal_numbers_give_no_nonsense(values):
    found = statistics.interval(values)
    if len(values) < 2:
        assert math.isnan(found.low)
        assert math.isnan(statistics.t_test(values))
        assert math.isnan(statistics.equivalence_test(values, 1))
        assert statistics.detectable(found.sd, found.n) == math.inf
    else:
        assert (found.low, found.high) == (2, 2)
        assert statistics.t_test(values, 2) == 1
        assert statistics.t_test(values, 0) == 0
        assert statistics.equivalence_test(values, 3) == 0
        assert statistics.detectable(found.sd, found.n) == 0

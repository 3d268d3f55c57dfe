"""Every built-in study is a row: it stands by itself, its arms build, and it ends in a verdict with figures."""

import dataclasses
import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import vl_convert

from normlab import measure, studies
from normlab.lab import Arm, Size
from normlab.lab.ask import ask, rehearse
from normlab.lab.run import Watcher, run
from normlab.report.thread import THREAD
from normlab.store import Runs
from normlab.store.verdict import Finding
from normlab.studies import noisy_bn, shift
from normlab.train import train

NAMES = studies.names()
each_study = pytest.mark.parametrize("name", NAMES)
SIZES = {"provenance": {"standard", "full"}}
LINES = {"quick", "standard", "full"}
# A verdict is "answered" or takes a stand.
STANDS = {"supported", "contradicted", "inconclusive"}
TINY = {"train_examples": 60, "epochs": 1, "batch_size": 20, "precise_examples": 20}
# What a study needs more of, lest it has nothing to draw.
MORE = {
    "depth-explosion": {"train_examples": 60, "batch_size": 60, "model_options": {"width": 20}},
    "convergence": {"train_examples": 60, "batch_size": 60, "epochs": 12},
    "precise-bn": {"batch_size": 3},
    "returned-statistics": {"train_examples": 40},
    "shift": {"probes": (shift.PROBE | {"every": 3, "examples": 60},)},
    "smoothness": {"train_examples": 60, "batch_size": 60, "epochs": 12},
    "transforms": {"train_examples": 20},
}
# Arms whose probe takes its time.
SHORTER = {"weight-decay": {"BN": Arm(probes=(measure.to_plain(measure.equivalent_rates(every=0, steps=20)),))}}
# Those that are asked, where others train as long at any size.
ARMS = {"noisy-bn": tuple(noisy_bn.NORMS), "shift": ("trained network",)}
SEEDS = 2


def tiny(name, arms=()):
    """The study, or some of its arms, asked of 60 digits."""
    study = studies.find(name)
    study = dataclasses.replace(study, arms={**study.arms, **SHORTER.get(name, {})})
    small = dataclasses.replace(study, sizes={"quick": Size(SEEDS, TINY | MORE.get(name, {}), arms)})
    of_mlp = all(
        recipe.get("model", study.recipe.model) == "mlp" for recipe in (arm.changes for arm in study.arms.values())
    )
    return ask(name, small, size="quick", data_name="digits-8x8" if of_mlp else "digits")


def source(name):
    return Path(studies.__path__[0], name.replace("-", "_") + ".py").read_text(encoding="utf-8")


def opening(name):
    """What its file begins with: whose question it is."""
    return source(name).removeprefix('"""')


def words(rule):
    """What a rule can say."""
    if hasattr(rule, "rules"):
        return set().union(*map(words, rule.rules))
    return {"answered", "inconclusive"} if type(rule).__name__ == "answered" else STANDS


@each_study
def test_it_has_its_sizes(name):
    study = studies.find(name)
    assert set(study.sizes) == SIZES.get(name, LINES)
    for size in study.sizes:
        assert study.recipe_of(size).epochs >= 1
        assert study.sizes[size].seeds >= 2
        assert study.plan.expected(len(study.arms), study.sizes[size].seeds) < 2_000


@each_study
def test_it_says_who_claims_what_and_which_line_of_the_thread_it_answers(name):
    study = studies.find(name)
    assert study.question.endswith("?")
    assert study.claim.endswith(".")
    assert study.source
    if opening(name).startswith("Thread"):
        assert study.thread or name == "reproduce", "which is the run that the thread began with"
    assert set(study.thread) <= set(range(15))
    assert study.figures
    assert len(study.arms) == len({str(arm) for arm in study.arms.values()}), "two arms that are one"


@each_study
def test_it_has_an_answer_for_every_word_that_decides(name):
    study = studies.find(name)
    if callable(study.answers):
        return
    said = set().union(*map(words, study.rules))
    weakest = said - {"answered"} if said & {"supported"} else said
    assert weakest <= set(study.answers)
    for answer in study.answers.values():
        assert "{" not in answer.format(effect="e", low="l", high="h", n=5, rule="r")


@each_study
def test_every_epoch_is_evaluated_where_a_measure_reads_it(name):
    study = studies.find(name)
    if {measure.name for measure in study.measures} & {"running accuracy", "statistics error"}:
        assert all(study.recipe_of(size).evaluate_epochs for size in study.sizes)


@each_study
def test_its_file_is_short(name):
    assert 20 <= len(source(name).splitlines()) <= 90
    assert opening(name).startswith(("Thread, line", "Literature: "))


@each_study
def test_its_probes_are_there_and_its_arms_are_built(name):
    asked = tiny(name)
    rehearse(asked)
    for recipe in asked.arms.values():
        for plain in recipe.probes:
            assert measure.from_plain(plain).every >= 0
    assert asked.rules


def test_every_finding_of_a_study_can_be_read_in_words():
    assert set(inspect.signature(Finding).parameters) >= {"effect", "low", "high", "n", "rule"}


class Failures(Watcher):
    def __init__(self):
        self.why = []

    def finished(self, trial, result):
        if isinstance(result, str):
            self.why.append(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"reproduce", "provenance"}])
def test_it_ends_in_a_verdict_with_figures(name, monkeypatch):
    if name == "cost":
        monkeypatch.setattr("normlab.lab.clock.ROUNDS", 2)
        monkeypatch.setattr("normlab.lab.clock.STEPS", 2)
    asked, watcher = tiny(name, ARMS.get(name, studies.find(name).sizes["quick"].arms)), Failures()
    (verdict,) = run([asked], Runs(), lambda: ThreadPoolExecutor(1), 1, watcher=watcher)
    assert watcher.why == []
    assert verdict == Runs().verdicts()[asked.key]
    assert "{" not in verdict.sentence
    assert len(verdict.figures) == len(asked.study.figures)
    for figure in verdict.figures:
        svg = vl_convert.vegalite_to_svg(figure.spec)
        assert "NaN" not in svg
    for each in asked.study.measures:
        assert verdict.measures[each.name].values.keys() == asked.study.arms.keys()
        numbers = [value for seeds in verdict.measures[each.name].values.values() for value in seeds.values()]
        if not each.name.startswith("steps"):  # which needs an arm that trains
            assert numbers, f"{each.name} has no number"


def test_a_study_of_a_file_of_the_users(tmp_path):
    file = tmp_path / "mine_too.py"
    file.write_text(
        "from torch import nn\nfrom normlab.studies.bias import STUDY\nimport dataclasses\n"
        "def build():\n  return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Linear(5, 10))\n"
        "STUDY = dataclasses.replace(STUDY, recipe=STUDY.recipe.replace(model='mine_too:build'))\n"
    )
    asked = ask(str(file), studies.find(str(file)), size="quick", seeds=2, data_name="digits-8x8")
    rehearse(asked)
    assert train(asked.arms["with bias"].replace(epochs=1)).recipe.model == "mine_too:build"


def test_the_studies_that_the_thread_names_are_there():
    assert {name for line in THREAD for name in line.studies} <= set(studies.names())

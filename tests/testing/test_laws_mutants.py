"""Every law kills its mutants, three or more, one of them wrong in nothing but its gradient."""

import collections

import norm_references
import pytest
import torch

from compare import assert_close
from mutants import MUTANTS
from normlab.testing import all_laws
from normlab.testing.check import PRECISIONS, judge
from normlab.testing.laws import identities
from normlab.testing.subject import run, subject

LAWS = {law.name: law for law in all_laws()}
KILLS = [(mutant, name) for mutant in MUTANTS for name in mutant.laws]


@pytest.fixture(autouse=True)
def references_by_name(monkeypatch):
    """The laws between transforms compare with the references here, not with what they are to judge elsewhere."""
    layers = {"batch": norm_references.Batch, "instance": norm_references.Instance}
    layers |= {"layer": norm_references.Layer, "rms": norm_references.Rms}
    monkeypatch.setattr(identities, "norm_names", lambda: [*layers])
    monkeypatch.setattr(identities, "make_norm", lambda name, count, dim, **options: layers[name](count, **options))


@pytest.mark.parametrize(("mutant", "name"), KILLS, ids=[f"{name}-{mutant.layer.__name__}" for mutant, name in KILLS])
def test_a_law_kills_its_mutant(mutant, name):
    outcomes = []
    for dtype in PRECISIONS.values():
        finding = judge(LAWS[name], subject(mutant.layer, mutant.layer.kind, dtype))
        outcomes.append(str(finding))
        if finding.outcome == "fail":
            return
    pytest.fail(f"{mutant.layer.__name__} lives: {outcomes}")


def test_every_law_has_three_mutants_and_one_wrong_in_its_gradient_alone():
    killed = collections.Counter(name for _, name in KILLS)
    by_gradient = {name for mutant, name in KILLS if mutant.gradient_only}
    assert set(killed) <= set(LAWS)
    assert {name for name in LAWS if killed[name] < 3 or name not in by_gradient} == set()


@pytest.mark.parametrize(
    "layer", [mutant.layer for mutant in MUTANTS if mutant.gradient_only], ids=lambda layer: layer.__name__
)
def test_a_mutant_of_the_gradient_has_the_values_of_the_reference(layer):
    reference = next(base for base in layer.__mro__ if base.__module__ == "norm_references")
    each = [subject(factory, layer.kind, torch.float64) for factory in (layer, reference)]
    x = each[0].draw()
    values = [run(one.make(drawn=True), x) for one in each]
    assert_close(values[0].detach(), values[1].detach())
    values = [run(one.trained(), x) for one in each]
    assert_close(values[0].detach(), values[1].detach())

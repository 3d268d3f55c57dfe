"""Every rule has a model that trips it and a near miss that does not; what mends it leaves nothing to find."""

import random
from typing import Any

import pytest
import table_behaviour
import table_layers
import table_settings
import table_structure
import table_training
import torch
from cases import Case
from states import state_of

from normlab import check
from normlab.rules import all_rules

TABLES = (table_structure, table_settings, table_behaviour, table_training, table_layers)
CASES = [case for table in TABLES for case in table.CASES]
MENDED = [case for case in CASES if all_rules()[case.id].mend is not None or all_rules()[case.id].recalibrates]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def groups_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the optimizer, its parameters by identity."""
    groups = given["optimizer"].param_groups if "optimizer" in given else []
    return [{**group, "params": [id(each) for each in group["params"]]} for group in groups]


def test_every_rule_has_its_row():
    assert sorted(case.id for case in CASES) == sorted(all_rules())


@cases
def test_the_fault_is_found_where_it_is(case: Case):
    torch.manual_seed(0)
    model = case.trips()
    found = check(model, **case.given(model)).found
    assert tuple(found.pop(case.id, ())) == case.paths
    assert set(found) <= set(case.also), "drowned in others"


@cases
def test_the_near_miss_is_spared(case: Case):
    torch.manual_seed(0)
    model = case.spares()
    diagnosis = check(model, **case.given(model))
    assert case.id not in diagnosis.found
    assert case.id not in diagnosis.unasked


@cases
def test_the_model_is_as_before(case: Case):
    torch.manual_seed(0)
    model = case.trips()
    given = case.given(model)
    before = state_of(model)
    check(model, **given)
    assert state_of(model) == before


@pytest.mark.parametrize("case", MENDED, ids=lambda case: case.id)
def test_what_mends_it_leaves_nothing(case: Case):
    torch.manual_seed(0)
    model = case.trips()
    given = case.given(model)
    data = [given["batch"]] if "batch" in given else [2 + 3 * torch.randn(16, 3, 8, 8)]
    before, groups = state_of(model), groups_of(given)
    drawn = random.getstate()
    changes = check(model, **given).fix(data)
    assert any(path.startswith(case.id) for path in changes.done)
    assert not any(path.startswith(case.id) for path in changes.left)
    assert case.id not in check(model, **given).found
    changes.undo()
    random.setstate(drawn)  # beartype, which checks shapes in tests, draws at every call
    assert state_of(model) == before
    assert groups_of(given) == groups


def test_at_least_thirty_are_mended():
    assert len(MENDED) >= 30

"""evaluating: every module's own mode goes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from normlab.surgery import evaluating


def network() -> nn.Module:
    shared = nn.Dropout()
    return nn.Sequential(shared, nn.Sequential(nn.BatchNorm1d(3), shared), nn.ModuleDict({"a": nn.Linear(3, 3)}))


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.booleans())
def test_each_module_gets_its_own_mode_back(modes: list[bool], fails: bool) -> None:
    model = network()
    modules = list(model.modules())
    for module, training in zip(modules, modes, strict=True):
        module.training = training
    try:
        with evaluating(model):
            assert not any(module.training for module in modules)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [module.training for module in modules] == modes


def test_a_model_that_keeps_a_part_frozen_by_its_own_train_method() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            self[0].eval()
            return self

    model = Frozen(nn.BatchNorm1d(3), nn.Linear(3, 3)).train()
    with evaluating(model):
        assert not model.training
    assert (model.training, model[0].training, model[1].training) == (True, False, True)


def test_an_error_that_is_raised_inside_gets_out() -> None:
    with pytest.raises(ZeroDivisionError), evaluating(nn.Linear(1, 1)):
        raise ZeroDivisionError

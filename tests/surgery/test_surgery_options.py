"""What a surgery takes before it is called on a model."""

import copy
import pickle
from typing import Any

import pytest

from normlab import surgery
from normlab.errors import NormlabError
from normlab.models import lenet
from normlab.surgery import adjust, fold, synchronize

ALL = [*surgery._BY_NAME.values(), synchronize]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_model_is_no_option(kind: Any) -> None:
    with pytest.raises(NormlabError, match=rf"call {kind.__name__}\(\.\.\.\)\(model\)"):
        kind(lenet())


def test_nor_by_name() -> None:
    with pytest.raises(NormlabError, match="options of fold"):
        fold(rows=lenet())  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    assert fold(rows=True) == pickle.loads(pickle.dumps(fold(True))) == copy.deepcopy(fold(True)) != fold()
    assert hash(fold()) == hash(fold(rows=False))
    with pytest.raises(AttributeError):
        fold().rows = True  # type: ignore[misc]


@pytest.mark.parametrize("settings", [{"eps": -1}, {"momentum": 1.5}, {"eps": float("inf")}])
def test_adjust_takes_no_setting_that_no_norm_takes(settings: dict[str, float]) -> None:
    with pytest.raises(NormlabError, match=next(iter(settings))):
        adjust(("norm1",), settings)

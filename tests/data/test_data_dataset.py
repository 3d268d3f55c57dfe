import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from normlab.data import Dataset, Examples, Loaded, hold_out
from normlab.errors import NormlabError


def examples(count: int, first: int = 0) -> Examples:
    """Examples whose only feature is their number."""
    return Examples(torch.arange(first, first + count, dtype=torch.float32)[:, None], torch.arange(count) % 10)


def dataset(validation: Examples | None = None) -> Dataset:
    return Dataset("mine", examples(100), validation, examples(5), classes=10)


def numbers(split: object) -> list[int]:
    assert isinstance(split, Examples)
    return split.x[:, 0].int().tolist()


def test_the_last_examples_validate_and_a_fixed_subset_of_the_rest_trains() -> None:
    held = hold_out(dataset(), 20, 30)
    assert numbers(held.validation) == list(range(80, 100))
    chosen = numbers(held.train)
    assert len(set(chosen)) == 30
    assert chosen == sorted(chosen)
    assert max(chosen) < 80
    assert chosen != list(range(30)), "a prefix is no random subset"
    assert held.test is not None
    assert len(held.test) == 5


def test_the_subset_is_the_same_for_every_trial_and_grows_by_nesting() -> None:
    torch.manual_seed(1)
    first = numbers(hold_out(dataset(), 0, 30).train)
    torch.manual_seed(2)
    assert numbers(hold_out(dataset(), 0, 30).train) == first
    assert set(first) < set(numbers(hold_out(dataset(), 0, 31).train))


def test_a_subset_keeps_the_number_of_classes_and_all_is_all() -> None:
    assert hold_out(dataset(), 0, 1).classes == 10
    assert numbers(hold_out(dataset(), 0, 100).train) == list(range(100))
    whole = dataset()
    assert hold_out(whole, 0) is whole


def test_a_validation_split_of_the_users_own_stays() -> None:
    own = examples(7, first=500)
    assert hold_out(dataset(own), 0, 10).validation is own
    with pytest.raises(NormlabError, match="mine has a validation split, got 20"):
        hold_out(dataset(own), 20)


@pytest.mark.parametrize(
    ("validation", "train_examples", "message"),
    [
        (100, None, "validation from 0 to 99, as one example must train, got 100"),
        (-1, None, "validation from 0 to 99"),
        (20, 81, "train_examples from 1 to 80, the training examples, got 81"),
        (0, 0, "train_examples from 1 to 100"),
    ],
)
def test_more_than_there_is_cannot_be_held_out(validation: int, train_examples: int | None, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        hold_out(dataset(), validation, train_examples)


@pytest.mark.parametrize(("validation", "train_examples"), [(5, None), (0, 5)])
def test_a_loader_cannot_be_divided(validation: int, train_examples: int | None) -> None:
    plain = examples(20)
    loaded = Dataset("mine", Loaded(DataLoader(TensorDataset(plain.x, plain.y))), None, None, 10)
    assert hold_out(loaded, 0) is loaded
    with pytest.raises(NormlabError, match="got a DataLoader; divide the data before loading it"):
        hold_out(loaded, validation, train_examples)


def test_splits_of_different_shapes_are_refused() -> None:
    other = Examples(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(NormlabError, match=r"test examples of mine with the shape \(1,\) of train, got \(2,\)"):
        Dataset("mine", examples(5), None, other, 10)

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from normlab.data import Examples, Loaded
from normlab.errors import NormlabError
from normlab.kernels import unpack


def examples(count: int = 10, dtype: torch.dtype = torch.uint8) -> Examples:
    return Examples(torch.arange(count * 6).reshape(count, 2, 3).to(dtype), torch.arange(count) % 3)


def test_bytes_become_float32_in_the_unit_interval() -> None:
    ((x, y),) = Examples(torch.tensor([[0, 51, 255]], dtype=torch.uint8), torch.tensor([2])).batches(8)
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.tensor([[0.0, 51 / 255, 1.0]]))
    assert y.dtype == torch.int64
    assert y.tolist() == [2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_stay_as_they_are(dtype: torch.dtype) -> None:
    data = examples(dtype=dtype)
    (x, _), *_ = data.batches(4)
    assert x.dtype == dtype
    assert torch.equal(x, data.x[:4])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("order", [None, torch.arange(10)], ids=["as they lie", "ordered"])
def test_a_batch_may_be_written_into(dtype: torch.dtype, order: torch.Tensor | None) -> None:
    data = examples(dtype=dtype)
    before = data.x.clone()
    for x, _ in data.batches(10, order):
        x.zero_()
    assert torch.equal(data.x, before)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 6), st.booleans(), st.integers(0, 99))
def test_batches_cover_the_order_and_resume_anywhere(
    count: int, size: int, start: int, shuffled: bool, seed: int
) -> None:
    data = examples(count, torch.float32)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) if shuffled else None
    whole = list(data.batches(size, order))
    expected = torch.arange(count) if order is None else order
    assert torch.equal(torch.cat([x for x, _ in whole]), data.x[expected])
    assert torch.equal(torch.cat([y for _, y in whole]), data.y[expected])
    assert [len(y) for _, y in whole[:-1]] == [size] * (len(whole) - 1)
    resumed = list(data.batches(size, order, start=start))
    assert len(resumed) == max(0, len(whole) - start)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(resumed, whole[start:], strict=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("start", [0, 1, 4, 9])
def test_batches_in_lanes_are_the_same(dtype: torch.dtype, start: int) -> None:
    data = Examples(torch.randint(0, 256, (37, 2, 3)).to(dtype), torch.arange(37))
    order = torch.randperm(37)[:35]
    found, expected = list(data.in_lanes(8, order, start=start)), list(data.batches(8, order, start=start))
    assert len(found) == len(expected)
    for (lanes, y), (x, its) in zip(found, expected, strict=True):
        assert torch.equal(unpack(lanes), x)
        assert torch.equal(y, its)


def test_facts_and_subsets() -> None:
    data = examples()
    assert (len(data), data.shape, data.classes) == (10, (2, 3), 3)
    part = data.subset(slice(4, 8))
    assert part.x.data_ptr() == data.x[4:].data_ptr(), "a slice must not copy what is mapped from a file"
    assert data.subset(torch.tensor([7, 1])).y.tolist() == [1, 1]


X, Y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0]], Y, "x as a tensor of uint8 or of floats, got a list"),
        (X.long(), Y, r"got a tensor of torch\.int64; convert x to float32"),
        (X.to(torch.complex64), Y, r"got a tensor of torch\.complex64"),
        (X[:, 0], Y, r"x of shape \(N, \.\.\.\), got shape \(4,\)"),
        (X, Y.int(), r"got a tensor of torch\.int32; convert y to int64"),
        (X, Y.float(), r"got a tensor of torch\.float32"),
        (X, [0, 0, 0, 0], "got a list"),
        (X, Y[:3], r"got shapes \(4, 2\) and \(3,\)"),
        (X, Y.reshape(4, 1), r"got shapes \(4, 2\) and \(4, 1\); give one class label per example"),
        (X[:0], Y[:0], "one at least, got none"),
        (X, Y - 1, "from 0 to K-1, got a label -1"),
    ],
)
def test_what_is_no_labelled_example_is_refused(x: object, y: object, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        Examples(x, y)  # type: ignore[arg-type]


def loader(data: Examples, **options: object) -> DataLoader:
    return DataLoader(TensorDataset(data.x, data.y), batch_size=4, **options)  # type: ignore[arg-type]


def test_a_loader_gives_its_own_batches_from_any_start() -> None:
    data = examples()
    loaded = Loaded(loader(data))
    assert (len(loaded), loaded.shape, loaded.classes) == (10, (2, 3), 3)
    whole, resumed = list(loaded.batches()), list(loaded.batches(start=1))
    assert [len(y) for _, y in whole] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in whole]), data.x / 255)
    assert torch.equal(torch.cat([y for _, y in resumed]), data.y[4:])


def test_reading_a_loader_at_first_leaves_the_random_state() -> None:
    own = torch.Generator().manual_seed(3)
    for options in ({}, {"generator": own}):
        state, own_state = torch.get_rng_state(), own.get_state()
        Loaded(loader(examples(), shuffle=True, **options))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(own.get_state(), own_state)


class Rows(IterableDataset):
    def __init__(self, rows: list, times: int = 99) -> None:
        self.rows, self.times = rows, times

    def __iter__(self):
        self.times -= 1
        return iter(self.rows if self.times >= 0 else [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one batch each time, got none"),
        ([torch.zeros(2, 3)], r"mine with batches \(x, y\), got a Tensor"),
        ([(X, Y, Y)], r"mine with batches \(x, y\), got a list"),
        ([(X, Y.float())], r"mine with class labels y as a tensor of int64, got a tensor of torch\.float32"),
        ([(X, Y), (torch.zeros(4, 3), Y)], r"mine with examples of one shape, got \(2,\), \(3,\)"),
    ],
)
def test_a_loader_of_something_else_is_refused(rows: list, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        Loaded(DataLoader(Rows(rows), batch_size=None), "mine")


def test_a_loader_that_can_be_read_only_once_is_found_out() -> None:
    once = Loaded(DataLoader(Rows([(X, Y)], times=1), batch_size=None))
    with pytest.raises(NormlabError, match="can be read again"):
        list(once.batches())


def test_batches_that_a_loader_keeps_may_be_written_into() -> None:
    kept = torch.ones(4, 2)
    for x, _ in Loaded(DataLoader(Rows([(kept, Y)]), batch_size=None)).batches():
        x.zero_()
    assert kept.sum() == 8


def test_a_loader_knows_its_smallest_batch() -> None:
    loader = DataLoader(TensorDataset(torch.rand(9, 2), torch.arange(9) % 3), batch_size=4)
    assert Loaded(loader).smallest == 1


@pytest.mark.parametrize("owner", ["loader", "sampler", "nobody"])
def test_a_seed_decides_the_order_whoever_holds_the_generator(owner: str) -> None:
    data = TensorDataset(torch.rand(30, 2), torch.arange(30))
    generator = torch.Generator().manual_seed(7)
    if owner == "sampler":
        loader = DataLoader(data, batch_size=7, sampler=RandomSampler(data, generator=generator))
    else:
        loader = DataLoader(data, batch_size=7, shuffle=True, generator=generator if owner == "loader" else None)
    loaded = Loaded(loader)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(7).get_state())

    def order(seed: int) -> list[int]:
        return torch.cat([y for _, y in loaded.batches(seed=seed)]).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)

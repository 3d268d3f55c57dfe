"""What does not fit is refused in one line before the first step; what the user made stays as it was made."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from normlab import data
from normlab.errors import NormlabError
from normlab.models import lenet
from normlab.nn import BatchNorm1d, BatchNorm2d
from normlab.store import Recipe
from normlab.train import Observer, train
from normlab.train.device import place, resolve

BASE = {"data": "users_zoo:tensors", "model": "users_zoo:plain", "batch_size": 32, "epochs": 2, "lr": 0.1}
ONE = r"to take a batch of shape \(1, .*more than 1 value per channel.*; choose --batch-size or --train-examples so"
SWAP = {"name": "swap", "source": "batch", "target": "none"}
REFUSED = {
    "one example left": ({"data": "users_zoo:one_left"}, ONE),
    "one example left by lenet": ({"data": "digits", "model": "lenet", "train_examples": 65, "batch_size": 64}, ONE),
    "one example left by mlp": ({"data": "digits", "model": "mlp", "train_examples": 65, "batch_size": 64}, ONE),
    "batches of one": ({"batch_size": 1}, ONE),
    "a tuple": ("a tuple", r"logits of shape \(N, classes\) = \(2, 3\), got a tuple; users_zoo:tensors has 3"),
    "a dict": ("a dict", "got a dict"),
    "nothing": ("nothing", "got a NoneType"),
    "labels from 1": (
        {"data": "users_zoo:from_one"},
        r"got \(2, 3\); users_zoo:from_one has 4 classes, as its labels begin at 1: number them from 0",
    ),
    "images without channels": (
        {"data": "users_zoo:gray", "model": "users_zoo:convolution"},
        r"to take a batch of shape \(6, 16, 16\), got RuntimeError: .*; give images .* axis, as x\[:, None\]",
    ),
    "too few": ("too few", r"got \(2, 2\)"),
    "a vector": ("a vector", r"got \(2,\)"),
    "an image": ("an image", r"got \(2, 3, 1\)"),
    "another count": ("another count", r"got \(1, 3\)"),
    "detached": ("detached", "to give logits with a gradient, got none; leave out its detach"),
    "labels": ("labels", "to give logits with a gradient"),
    "raises in training": (
        {"model": "users_zoo:Raising", "model_options": {"training": True}},
        r"model users_zoo:Raising to take a batch of shape \(2, 6\), got OSError: not in this mode; --debug",
    ),
    "raises in evaluation": (
        {"model": "users_zoo:Raising", "model_options": {"training": False}},
        r"to take a batch of shape \(2, 6\), got OSError: not in this mode",
    ),
    "another input": ({"model": "users_zoo:images_model"}, r"to take a batch of shape \(2, 6\), got RuntimeError"),
    "a schedule without an end": (
        {"data": "users_zoo:streamed", "schedule": "cosine"},
        "of a known length for the schedule cosine, got a loader without one; .*take the schedule constant",
    ),
    "a surgery without a place": (
        {"model": "users_zoo:without_norms", "surgeries": (SWAP,)},
        "something in model users_zoo:without_norms for swap.* to change, got nothing; leave it out",
    ),
    "an unknown surgery": ({"surgeries": ({"name": "folding"},)}, "got 'folding'; did you mean fold"),
    "nothing to train": (
        {"model": "users_zoo:frozen_model"},
        "model users_zoo:frozen_model to have parameters to train, got none",
    ),
    "an unknown model": ({"model": "lenett", "data": "no_such_module:data"}, r"did you mean lenet\?"),
    "an unknown device": ({"device": "gpu"}, r"that computes in float32, got 'gpu' \(.*\); take auto or cpu"),
    "a device that is no machine's": ({"device": "meta"}, "a device of this machine .*got 'meta'"),
    "a device too many": ({"device": "cuda:99"}, "a device of this machine .*got 'cuda:99'"),
    "too many classes": (
        {"data": "digits", "model": "lenet", "model_options": {"classes": 9}},
        r"got \(29, 9\); digits has 10 classes",
    ),
    "too much held out": ({"validation": 20}, "validation 0, as users_zoo:tensors has a validation split, got 20"),
}  # fmt: skip


class Begun(Observer):
    def begin(self, *_: object) -> None:
        raise AssertionError("the training began")


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(case: str) -> None:
    changes, message = REFUSED[case]
    if isinstance(changes, str):
        changes = {"model": "users_zoo:Giving", "model_options": {"form": changes}}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(NormlabError, match=message) as caught:
        train(Recipe(**BASE | changes), observer=Begun())
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_example_is_enough_where_no_statistic_needs_two() -> None:
    recipe = Recipe(**BASE | {"data": "users_zoo:one_left", "model": "users_zoo:without_norms"})
    assert train(recipe).last.train_loss is not None
    conv = Recipe(data="digits", train_examples=65, batch_size=64, epochs=1, model_options={"norms": "conv"})
    assert train(conv).last.train_loss is not None


def test_names_are_wrong_before_any_data_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("data were asked for"))
    for wrong in ({"model": "lenett"}, {"surgeries": ({"name": "folding"},)}, {"model": "users_zoo:nothing_there"}):
        with pytest.raises(NormlabError):
            train(Recipe(**BASE | wrong))


def test_what_raises_later_is_told_with_its_batch_too() -> None:
    """Only a batch of evaluation's size brings it out: 130 training examples in one."""
    recipe = Recipe(**BASE | {"model": "users_zoo:Large", "epochs": 1})
    with pytest.raises(
        NormlabError, match=r"users_zoo:Large to take a batch of shape \(40, 6\), got ValueError: too"
    ):
        train(recipe)


# --- the user's model stays as it was made -------------------------------------------------------------------------


def test_a_frozen_part_stays_frozen(built: list[nn.Module]) -> None:
    result = train(Recipe(**BASE | {"model": "users_zoo:Frozen"})).result
    (model,) = built
    assert (True, True) not in model.modes
    assert model.modes.count((False, True)) == 1 + 2 * 5, "the rehearsal, and the steps"
    norm = model.backbone[1]
    assert torch.equal(norm.running_mean, torch.full((8,), 0.25))
    assert torch.equal(norm.running_var, torch.ones(8))
    assert int(norm.num_batches_tracked) == 0
    assert int(model.head[0].num_batches_tracked) == 2 * 5
    assert [parameter.grad for parameter in model.backbone.parameters()] == [None] * 4
    assert [module.training for module in (model, model.backbone, norm, model.head[0])] == [True, False, False, True]
    assert result.precise is not None


def test_the_rehearsal_leaves_no_trace(built: list[nn.Module]) -> None:
    class First(Observer):
        def begin(self, *_: object) -> None:
            raise InterruptedError

    for model in ("plain", "Remembering", "book", "lazy"):
        with pytest.raises(InterruptedError):
            train(Recipe(**BASE | {"model": f"users_zoo:{model}"}), observer=First())
    plain, remembering, book, lazy = built
    for norm in (plain[1], lazy[1]):
        assert torch.equal(norm.running_mean, torch.zeros(8))
        assert torch.equal(norm.running_var, torch.ones(8))
        assert int(norm.num_batches_tracked) == 0
    assert remembering.seen.shape == (0, 6)
    assert not remembering.mean.any()
    assert remembering.scale == 1
    assert not book[1].moving_mean.any()
    assert torch.equal(book[1].moving_var, torch.ones(1, 8))


def test_what_a_pass_of_evaluation_keeps_serves_in_training() -> None:
    """Batches of 32 after evaluation's 40: the kept tensor is evaluation's."""
    recipe = Recipe(**BASE | {"model": "users_zoo:Caching"})
    assert len(train(recipe).result.epochs) == 2


def test_a_lazy_model_can_be_operated_on(built: list[nn.Module]) -> None:
    swap = {"name": "swap", "source": "batch", "target": "batch", "options": {"eps": 0.5}}
    train(Recipe(**BASE | {"model": "users_zoo:lazy", "surgeries": (swap,)}))
    assert type(built[0][1]) is BatchNorm1d
    assert (built[0][1].num_features, built[0][1].eps) == (8, 0.5)


def test_surgeries_are_done_in_their_order(built: list[nn.Module]) -> None:
    ours = {"name": "swap", "source": "batch", "target": "batch", "options": {"momentum": 0.5}}
    train(Recipe(**BASE | {"surgeries": (ours, SWAP)}))
    assert type(built[0][1]) is nn.Identity
    with pytest.raises(NormlabError, match=r"something in model .* to change"):
        train(Recipe(**BASE | {"surgeries": (SWAP, ours)}))


# --- where and in which arithmetic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_batch_norms_never_go_below_float32(dtype: str) -> None:
    model = lenet(seed=0)
    model.norm2 = nn.BatchNorm2d(16)
    for norm in (model.norm1, model.norm2):
        norm.running_mean.uniform_()
        nn.init.uniform_(norm.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    place(model, Recipe(dtype=dtype, device="cpu"))
    place(model, Recipe(dtype=dtype, device="cpu"))
    for name, value in model.state_dict().items():
        if "norm" in name:
            assert torch.equal(value.double(), before[name].double()), f"{name} was rounded on the way"
            assert value.dtype in {torch.int64, torch.float64 if dtype == "float64" else torch.float32}
        else:
            assert value.dtype == getattr(torch, dtype)


def test_what_a_surgery_puts_in_place_is_of_the_recipes_dtype(built: list[nn.Module]) -> None:
    swap = {"name": "swap", "source": "batch", "target": "users_zoo:Shift"}
    train(Recipe(**BASE | {"surgeries": (swap,), "dtype": "bfloat16", "epochs": 1}))
    assert built[0][1].weight.dtype == torch.bfloat16


def test_auto_becomes_what_there_is() -> None:
    resolved = resolve(Recipe(device="auto"))
    assert resolved.device in {"cpu", "cuda", "mps"}
    assert resolved.threads == torch.get_num_threads()
    assert resolve(Recipe(device="cpu", threads=3)).threads == 3
    assert BatchNorm2d(3).weight.device.type == "cpu"


# --- a trial's name ------------------------------------------------------------------------------------------------

numbers = itertools.count()


def test_the_users_source_is_part_of_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the very first run: a module in the working directory is found only once it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    name = f"users_trial_{next(numbers)}"
    source = Path(f"{name}.py")
    source.write_text("from torch import nn\ndef make(): return nn.Linear(6, 3)\n")
    recipe = Recipe(**BASE | {"model": f"{name}:make", "epochs": 1})
    first = train(recipe).trial
    assert train(recipe).trial == first
    source.write_text(source.read_text() + "# another\n")
    assert train(recipe).trial != first

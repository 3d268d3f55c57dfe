"""train against a loop written out by hand, and what a record holds."""

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab import data, models
from normlab.store import Epoch, Recipe, Record
from normlab.surgery import recalibrate
from normlab.train import Observer, train
from normlab.train.optimizer import learning_rate
from normlab.train.progress import WARMUP_STEPS, Progress, Sums


@dataclasses.dataclass
class ByHand:
    """A run of the book's loop: plain, slow, obviously right."""

    recipe: Recipe

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.dtype = getattr(torch, recipe.dtype)
        self.dataset = data.hold_out(data.load(recipe.data), recipe.validation, recipe.train_examples)
        self.model = models.build(
            recipe.model,
            recipe.model_options,
            input_shape=self.dataset.shape,
            classes=self.dataset.classes,
            seed=recipe.seed,
        ).to(self.dtype)
        self.epochs = [self.epoch(number) for number in range(recipe.epochs)]
        recalibrate(self.model, lambda: (x for x, _ in self.batches(self.dataset.train, 250)))
        self.precise = {name: self.evaluate(getattr(self.dataset, name)) for name in ("train", "validation", "test")}

    def batches(
        self, split: data.Examples, size: int, order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        x = split.x.float() / 255 if split.x.dtype == torch.uint8 else split.x
        order = torch.arange(len(split)) if order is None else order
        for rows in order.split(size):
            yield x[rows].to(self.dtype), split.y[rows]

    def epoch(self, number: int) -> Epoch:
        recipe, train_split = self.recipe, self.dataset.train
        steps = math.ceil(len(train_split) / recipe.batch_size)
        order = torch.randperm(len(train_split), generator=models.generator(recipe.seed, "shuffle", number))
        loss_sum = correct = norms = 0.0
        for step, (x, y) in enumerate(self.batches(train_split, recipe.batch_size, order)):
            logits = self.model(x)
            loss = cross_entropy(logits, y)
            self.model.zero_grad()
            loss.backward()
            gradient = torch.cat([parameter.grad.flatten() for parameter in self.model.parameters()])
            norms += gradient.norm().item()
            rate = learning_rate(recipe, number * steps + step, recipe.epochs * steps)
            with torch.no_grad():
                for parameter in self.model.parameters():
                    decay = recipe.weight_decay if parameter.dim() > 1 else 0.0
                    parameter -= rate * (parameter.grad + decay * parameter)
            loss_sum += loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
        held_out = (self.dataset.validation, self.dataset.test) if recipe.evaluate_epochs else (None, None)
        validation, test = map(self.evaluate, held_out)
        return Epoch(
            epoch=number + 1,
            train_loss=loss_sum / len(train_split),
            train_accuracy=correct / len(train_split),
            validation_accuracy=validation and validation[1],
            test_accuracy=test and test[1],
            gradient_norm=norms / steps,
        )

    def evaluate(self, split: data.Examples | None) -> tuple[float, float] | None:
        if split is None:
            return None
        self.model.eval()
        with torch.no_grad():
            ((x, y),) = self.batches(split, len(split))
            logits = self.model(x)
        self.model.train()
        return cross_entropy(logits, y).item(), (logits.argmax(1) == y).double().mean().item()


USERS = {"data": "users_zoo:tensors", "model": "users_zoo:plain"}
RECIPES = {
    "digits": Recipe(data="digits", batch_size=64, epochs=1, train_examples=500),
    "held out": Recipe(data="digits-8x8", model="mlp", validation=100, train_examples=450, batch_size=32, epochs=3),
    "cosine": Recipe(data="digits-8x8", model="mlp", schedule="cosine", batch_size=100, epochs=2, train_examples=300),
    "one-cycle": Recipe(**USERS, schedule="one-cycle", lr=0.5, batch_size=16, epochs=3),
    "decay": Recipe(**USERS, weight_decay=0.01, lr=0.1, batch_size=32, epochs=3),
    "one batch": Recipe(**USERS, lr=0.1, batch_size=1000, epochs=2),
    "without norms": Recipe(data="users_zoo:tensors", model="users_zoo:without_norms", lr=0.1, epochs=3),
    "at the end": Recipe(**USERS, lr=0.1, batch_size=32, epochs=2, evaluate_epochs=False),
    "at the end, without norms": Recipe(
        data="users_zoo:tensors", model="users_zoo:without_norms", lr=0.1, epochs=2, evaluate_epochs=False
    ),
    "bytes": Recipe(data="users_zoo:images", model="users_zoo:images_model", lr=0.1, batch_size=20, epochs=2),
    "float64 data": Recipe(data="users_zoo:float64", model="users_zoo:plain", lr=0.1, batch_size=32, epochs=2),
    "float16 data": Recipe(data="users_zoo:half", model="users_zoo:plain", lr=0.1, batch_size=32, epochs=2),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECIPES)
def test_it_is_the_loop_written_out(name: str, dtype: str) -> None:
    recipe = RECIPES[name].replace(dtype=dtype, lanes=False)
    result, hand = train(recipe).result, ByHand(recipe)
    # Sums in another order: rounding, which training makes larger.
    close = {"rel": 1e-9, "abs": 1e-9} if dtype == "float64" else {"rel": 2e-3, "abs": 2e-3}
    accuracy = {"abs": 0.0 if dtype == "float64" else 0.015}
    assert len(result.epochs) == recipe.epochs
    for ours, theirs in zip(result.epochs, hand.epochs, strict=True):
        assert ours.epoch == theirs.epoch
        assert ours.train_loss == pytest.approx(theirs.train_loss, **close)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, **close)
        for share in ("train_accuracy", "validation_accuracy", "test_accuracy"):
            assert getattr(ours, share) == pytest.approx(getattr(theirs, share), **accuracy), share
    precise = result.precise
    assert precise.train_loss == pytest.approx(hand.precise["train"][0], **close)
    for split, share in hand.precise.items():
        assert getattr(precise, f"{split}_accuracy") == pytest.approx(share and share[1], **accuracy), split
    assert result.parameters == sum(parameter.numel() for parameter in hand.model.parameters())
    assert (result.nonfinite, result.nonfinite_batches) == (None, 0)


def test_more_than_a_sample_is_recomputed_over_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[bool] = []

    def watched(*given: object, at_once: bool) -> object:
        ways.append(at_once)
        return recalibrate(*given, at_once=at_once)

    monkeypatch.setattr("normlab.train.evaluate.recalibrate", watched)
    recipe = RECIPES["held out"].replace(dtype="float64")
    sample = train(recipe).result.precise
    monkeypatch.setattr("normlab.train.evaluate.SAMPLE", 400)
    layered = train(recipe).result.precise
    assert ways == [True, False]
    assert sample.train_loss == pytest.approx(layered.train_loss, rel=1e-9)


def test_the_hand_written_loop_learns() -> None:
    """Else the comparison would be one of two broken loops."""
    epochs = ByHand(RECIPES["held out"]).epochs
    assert epochs[0].train_loss > 1.2 * epochs[-1].train_loss
    assert epochs[-1].train_accuracy > 0.6


def test_float64_is_float64_all_the_way() -> None:
    """Its loss has digits that float32 does not hold."""
    recipe = RECIPES["one batch"]
    loss = train(recipe.replace(dtype="float64", epochs=1)).last.train_loss
    assert abs(loss - torch.tensor(loss, dtype=torch.float32).item()) > 1e-12


def test_bfloat16_trains_near_float32() -> None:
    recipe = Recipe(data="digits-8x8", model="mlp", optimizer="adamw", lr=0.01, batch_size=64, epochs=3)
    full, short = (train(recipe.replace(dtype=dtype)).last for dtype in ("float32", "bfloat16"))
    assert short.train_loss == pytest.approx(full.train_loss, rel=0.1)
    assert short.train_loss != full.train_loss
    assert short.test_accuracy == pytest.approx(full.test_accuracy, abs=0.1)


def test_recomputed_statistics_leave_the_models_own_untouched(built: list[nn.Module]) -> None:
    seen: list[dict[str, Tensor]] = []

    class Watch(Observer):
        def look(self, *_: object) -> None:
            seen.append({name: value.clone() for name, value in built[0].named_buffers()})

        recalibrating = end = look

    record = train(RECIPES["held out"], observer=Watch())
    before, after = seen
    assert len(before) == 12
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert record.result.precise.test_accuracy != record.last.test_accuracy, "or nothing was recomputed"


# --- a loss that is no number --------------------------------------------------------------------------------------


def exploding(at: int) -> Recipe:
    model = {"model": "users_zoo:Exploding", "model_options": {"at": at}}
    return Recipe(**model, data="users_zoo:tensors", lr=0.1, batch_size=32)


@pytest.mark.parametrize(("at", "epoch", "step"), [(1, 1, 1), (3, 1, 3), (5, 1, 5), (6, 2, 1), (12, 3, 2)])
def test_it_is_recorded_where_it_came(at: int, epoch: int, step: int) -> None:
    result = train(exploding(at)).result
    assert (result.nonfinite.epoch, result.nonfinite.step) == (epoch, step)
    assert result.precise is None
    assert [each.epoch for each in result.epochs] == [*range(1, epoch + 1)]
    last = result.epochs[-1]
    assert (last.train_loss, last.gradient_norm, last.validation_accuracy, last.test_accuracy) == (None,) * 4
    assert 0 <= last.train_accuracy <= 1
    assert all(each.train_loss is not None and each.test_accuracy is not None for each in result.epochs[:-1])


def test_a_learning_rate_that_no_network_survives() -> None:
    swap = {"name": "swap", "source": "batch", "target": "none"}
    options = {"activation": "relu"}
    record = train(Recipe(data="digits", lr=1e30, batch_size=64, epochs=2, model_options=options, surgeries=(swap,)))
    assert record.result.nonfinite is not None
    assert record.last.train_loss is None
    plain = json.loads(record.model_dump_json())
    json.dumps(plain, allow_nan=False)
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_a_gradient_norm_that_overflows_is_none_under_a_loss_that_is_a_number() -> None:
    recipe = Recipe(data="users_zoo:tensors", model="users_zoo:Steep", lr=1e-35, batch_size=32, epochs=1)
    record = train(recipe)
    assert record.last.gradient_norm is None
    assert record.last.train_loss is not None
    assert record.result.nonfinite is None
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_batches_that_ours_kept_out_of_its_statistics_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    load = data.load

    def with_an_inf(name: str, **options: object) -> data.Dataset:
        dataset = load(name, **options)
        x = dataset.train.x.clone()
        x[3] = torch.inf
        return dataclasses.replace(dataset, train=data.Examples(x, dataset.train.y))

    monkeypatch.setattr(data, "load", with_an_inf)
    result = train(Recipe(data="users_zoo:tensors", model="mlp", lr=0.1, batch_size=32)).result
    assert result.nonfinite.epoch == 1
    assert result.nonfinite_batches >= 1


# --- who watches ---------------------------------------------------------------------------------------------------


class Listening(Observer):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def begin(self, recipe: Recipe, steps_per_epoch: int | None, epochs_done: int) -> None:
        self.heard.append(("begin", recipe.device, recipe.threads, steps_per_epoch, epochs_done))

    def step(self, sums: Sums) -> None:
        self.heard.append(("step", sums.steps, sums.examples))

    def epoch(self, epoch: Epoch, examples_per_s: float) -> None:
        self.heard.append(("epoch", epoch.epoch, examples_per_s > 0))

    def recalibrating(self) -> None:
        self.heard.append("recalibrating")

    def end(self) -> None:
        self.heard.append("end")


def test_an_observer_hears_of_everything_in_order() -> None:
    observer = Listening()
    train(RECIPES["decay"].replace(epochs=2, batch_size=50, threads=1, device="cpu"), observer=observer)
    epoch = [("step", 1, 50), ("step", 2, 100), ("step", 3, 130)]
    assert observer.heard == [
        ("begin", "cpu", 1, 3, 0), *epoch, ("epoch", 1, True), *epoch, ("epoch", 2, True), "recalibrating", "end",
    ]  # fmt: skip


def test_an_observer_hears_of_the_end_after_an_error_too() -> None:
    class Failing(Listening):
        def step(self, sums: Sums) -> None:
            raise OSError

    observer = Failing()
    with pytest.raises(OSError):  # noqa: PT011
        train(RECIPES["decay"], observer=observer)
    assert observer.heard[-1] == "end"


def test_the_record_says_what_ran_where() -> None:
    record = train(RECIPES["decay"].replace(threads=1))
    resolved = {"device": record.recipe.device, "lanes": record.recipe.lanes}
    assert record.recipe == RECIPES["decay"].replace(threads=1, **resolved)
    assert record.recipe.device in {"cpu", "cuda", "mps"}
    assert record.versions["torch"] == importlib.metadata.version("torch")
    assert record.timing.seconds > 0
    assert record.timing.examples_per_s > 0
    assert record.timing.device == record.recipe.device


def test_examples_per_second_leave_the_warm_up_out() -> None:
    progress = Progress()
    assert progress.examples_per_s == 0
    for step in range(WARMUP_STEPS + 2):
        warm = step >= WARMUP_STEPS
        progress.count(0.5 if warm else 100.0, 10, warm=warm)
        assert progress.examples_per_s == (20.0 if warm else 0.1)

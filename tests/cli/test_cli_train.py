import re

import pytest

from normlab.store import Runs

TINY = ("train", "--data", "users:data", "--batch-size", 20, "--epochs", 2)
SWAP = {"name": "swap", "source": "batch"}
LAST = re.compile(r"loss \d+\.\d{3}, train acc \d\.\d{3}, test acc \d\.\d{3}; \d+ examples/sec on cpu")


def test_a_run_line_by_line(normlab, users):
    outcome = normlab(*TINY, "--threads", 1, "--plot", "curve.html", "--checkpoints", "checkpoints")
    assert (outcome.code, outcome.err) == (0, "")
    number = r"\d\.\d{3}"
    patterns = [
        "lenet on users:data: sgd, lr 1, batch 20, 2 epochs, seed 0, cpu, 1 threads",
        rf"epoch 1/2: loss {number}, train acc {number}, test acc {number}; \d+ examples/sec",
        rf"epoch 2/2: loss {number}, train acc {number}, test acc {number}; \d+ examples/sec",
        rf"test acc {number} under running statistics, {number} under statistics recomputed over the training data",
        f"curve: {re.escape(str(users / 'curve.html'))}",
        rf"record: [0-9a-f]{{16}} in {re.escape(str(Runs().path))}",
        r"loss \d\.\d{3}, train acc \d\.\d{3}, test acc \d\.\d{3}; \d+ examples/sec on cpu",
    ]
    for line, pattern in zip(outcome.out.splitlines(), patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    assert {path.name for path in users.rglob("*") if path.is_file()} >= {"curve.html", "epoch-0002.safetensors"}


def test_the_last_line_is_of_the_last_epoch_and_of_the_record(normlab, users):
    outcome = normlab(*TINY)
    [(_, record)] = Runs().list()
    assert outcome.last == (
        f"loss {record.last.train_loss:.3f}, train acc {record.last.train_accuracy:.3f}, "
        f"test acc {record.last.test_accuracy:.3f}; {record.timing.examples_per_s:.0f} examples/sec on cpu"
    )


def test_without_evaluating_epochs_the_test_accuracy_is_that_of_the_end(normlab, users):
    outcome = normlab(*TINY, "--no-evaluate-epochs")
    [(_, record)] = Runs().list()
    assert [epoch.test_accuracy for epoch in record.result.epochs] == [None, None]
    tested = f"test acc {record.result.precise.test_accuracy:.3f}"
    assert f"{tested} under statistics recomputed over the training data" in outcome.out.splitlines()
    assert tested in outcome.last


def test_json_is_the_last_line_in_place_of_the_threads(normlab, users):
    outcome = normlab(*TINY, "--json", "--validation", 10)
    assert outcome.code == 0
    assert not any(LAST.fullmatch(line) for line in outcome.out.splitlines())
    found = outcome.json
    [(_, record)] = Runs().list()
    precise = record.result.precise
    assert found == {
        "loss": record.last.train_loss,
        "train_acc": record.last.train_accuracy,
        "validation_acc": record.last.validation_accuracy,
        "test_acc": record.last.test_accuracy,
        "precise_train_acc": precise.train_accuracy,
        "precise_validation_acc": precise.validation_accuracy,
        "precise_test_acc": precise.test_accuracy,
        "examples_per_s": record.timing.examples_per_s,
        "parameters": 44878,
        "seconds": record.timing.seconds,
        "trial": record.trial,
    }
    assert None not in found.values()


def test_a_run_whose_loss_is_no_number(normlab, users):
    """It is recorded, drawn and told, and its JSON is JSON."""
    nan = ("train", "--data", "users:data", "--model", "users:model_nan", "--batch-size", 20, "--plot", "curve.svg")
    told = normlab(*nan)
    assert (told.code, told.err) == (0, "")
    assert "epoch 1/10: loss not finite, train acc 0.000; 0 examples/sec" in told.out
    assert "the loss was not finite at epoch 1, step 1: training ended there" in told.out
    assert told.last == "loss nan, train acc 0.000, test acc nan; 0 examples/sec on cpu"
    assert (users / "curve.svg").exists()
    found = normlab(*nan, "--json").json
    assert (found["loss"], found["test_acc"], found["precise_test_acc"]) == (None, None, None)
    trial = found["trial"]
    assert normlab("runs", "show", trial, "--json").json["result"]["nonfinite"] == {"epoch": 1, "step": 1}
    assert normlab("runs", "list", "--json").json[0]["nonfinite_step"] == 1
    assert normlab("runs", "show", trial).code == 0


def test_data_without_a_test_split(normlab, users):
    outcome = normlab("train", "--data", "users:train_only", "--batch-size", 20, "--epochs", 1, "--plot", "curve.png")
    assert outcome.code == 0
    assert re.fullmatch(r"loss \d\.\d{3}, train acc \d\.\d{3}, test acc nan; \d+ examples/sec on cpu", outcome.last)
    assert "statistics recomputed" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        (["--norm", "none"], {"surgeries": (SWAP | {"target": "none"},)}),
        (["--norm", "users:OtherNorm"], {"surgeries": (SWAP | {"target": "users:OtherNorm"},)}),
        (["--model", "users:model", "--model-options", "text=[red]", "number=2"], {"model": "users:model"}),
        (["--model-options", "activation=relu", "dropout=0.1"],
         {"model_options": {"activation": "relu", "dropout": 0.1}}),
        (["--model-options", "activation=relu", "--model-options", "bias=false"],
         {"model_options": {"activation": "relu", "bias": False}}),
        (["--optimizer", "adamw", "--lr", "1e-3", "--weight-decay", 0.1, "--decay-all", "--schedule", "one-cycle"],
         {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1, "decay_all": True, "schedule": "one-cycle"}),
        (["--dtype", "float64", "--seed", 3, "--train-examples", 20],
         {"dtype": "float64", "seed": 3, "train_examples": 20}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)  # fmt: skip
def test_options_become_the_recipe(normlab, users, arguments, recipe):
    outcome = normlab(*TINY, *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    [(_, record)] = Runs().list()
    assert record.recipe.model_dump().items() >= recipe.items()
    assert LAST.fullmatch(outcome.last)


def test_the_same_command_is_the_same_trial_and_the_users_source_counts(normlab, users):
    first, again = (normlab(*TINY, "--json").json for _ in range(2))
    assert first["trial"] == again["trial"]
    assert first["loss"] == again["loss"]
    with (users / "users.py").open("a") as module:
        module.write("# another line\n")
    assert normlab(*TINY, "--json").json["trial"] != first["trial"]
    assert len(Runs().list()) == 2


def test_a_store_of_its_own_under_a_name_that_looks_like_markup(normlab, users):
    outcome = normlab(*TINY, "--store", "[red]:smile:/[/].db", "--plot", "[b]:+1:.svg")
    assert outcome.code == 0
    assert "record: " in outcome.out
    assert " in [red]:smile:/[/].db\n" in outcome.out
    assert f"curve: {users / '[b]:+1:.svg'}\n" in outcome.out
    assert Runs().list() == []
    assert len(Runs("[red]:smile:/[/].db").list()) == 1


@pytest.mark.parametrize("name", ["curve.png", "curve.svg", "curve.html", "CURVE.PNG"])
def test_the_ending_says_how_the_curve_is_drawn(normlab, users, name):
    assert normlab(*TINY, "--plot", name).code == 0
    start = (users / name).read_bytes()[:15].lower()
    assert start.startswith({"png": b"\x89png", "svg": b"<svg", "tml": b"<!doctype html>"}[name[-3:].lower()])

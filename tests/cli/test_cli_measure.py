"""normlab measure: a built-in model and the user's own, on data and on random numbers, into a terminal and files."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from normlab import models
from normlab.data import load
from normlab.measure import sharpness

SMALL = ("--model-options", "widths=[6,5]", "activation=relu", "--examples", "20")
COMMANDS = {
    "signal": {"layers", "activations", "gradients", "correlations", "rates"},
    "activations": {"layers"},
    "landscape": {"loss", "gradient_norm", "rates", "losses", "gradient_changes", "loss_range", "smoothness"},
    "sharpness": {"mode", "eigenvalues", "self_check", "two_over_largest"},
}
each_command = pytest.mark.parametrize("command", COMMANDS)


@each_command
def test_numbers_and_a_figure(normlab, command, users):
    outcome = normlab("measure", command, "mlp", *SMALL, "--json", "--output", "figure.json")
    assert (outcome.code, outcome.err, len(outcome.out.splitlines())) == (0, "", 1)
    assert outcome.json.keys() == COMMANDS[command]
    assert "mlp" in json.loads((users / "figure.json").read_text())["description"]
    assert normlab("measure", command, "mlp", *SMALL, "--json").json == outcome.json, "the same again"
    assert normlab("measure", command, "mlp", *SMALL, "--json", "--seed", 1).json != outcome.json


@each_command
def test_a_table_and_a_sentence(normlab, command, users):
    outcome = normlab("measure", command, "mlp", *SMALL, "--plot", "figure.svg")
    header, *rows, sentence, drawn = outcome.out.splitlines()
    assert outcome.code == 0
    assert rows
    assert all(len(row.split("\t")) == len(header.split("\t")) for row in rows)
    assert ": " in sentence or " by " in sentence or " is " in sentence
    assert drawn == f"figure: {users / 'figure.svg'}"
    assert (users / "figure.svg").read_text().startswith("<svg")


@each_command
@pytest.mark.parametrize("given", [("--data", "users:data"), ("--batch", "6,1,28,28")], ids=" ".join)
def test_a_users_model(normlab, command, given, users):
    kinds = ("--of", "leaf") if command == "activations" else ()
    outcome = normlab("measure", command, "users:model", *given, *kinds, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json.keys() == COMMANDS[command]


def test_the_numbers_are_the_functions(normlab):
    found = normlab(
        "measure", "sharpness", "mlp", *SMALL, "--count", 3, "--mode", "eval", "--json", "--device", "cpu"
    )
    dataset = load("digits")
    x, y = next(dataset.train.sample(20).batches(20))
    model = models.mlp(widths=[6, 5], activation="relu", seed=0)
    by_hand = sharpness(model, x, y, cross_entropy, mode="eval", count=3)
    assert found.json["mode"] == "eval"
    assert found.json["eigenvalues"] == pytest.approx(by_hand.eigenvalues, rel=1e-9)


def test_of_a_loader_its_first_batch(normlab, users):
    with (users / "users.py").open("a") as file:
        file.write(
            "\nfrom torch.utils.data import DataLoader, TensorDataset"
            "\ndef loader(): return {'train': DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 16)}\n"
        )
    outcome = normlab("measure", "signal", "lenet", "--data", "users:loader", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["layers"] == ["conv1", "conv2", "linear3", "linear4", "output"]


def test_a_batch_whose_last_part_would_have_one_example(normlab):
    """Nothing is trained: 33 examples are one batch of 33, not one of 32 and one of 1."""
    outcome = normlab("measure", "signal", "lenet", "--batch", "33,1,28,28", "--json")
    assert (outcome.code, outcome.err) == (0, "")


def test_what_is_no_number_is_null(normlab, users):
    found = normlab("measure", "landscape", "users:model_nan", "--batch", "4,1,28,28", "--json").json
    assert found["loss"] is None
    assert found["smoothness"] is None


def test_evaluation_mode(normlab):
    by_mode = [
        normlab("measure", "activations", "lenet", "--mode", mode, "--examples", 16, "--json").json["layers"]
        for mode in ("train", "eval")
    ]
    assert by_mode[0]["norm1"]["variance"] == pytest.approx(1, abs=0.01)
    assert by_mode[1]["norm1"]["variance"] < 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["signal", "users:model"], "--data or --batch for a model of yours, got neither; as --batch 32,3,224,224"),
        (["signal", "lenet", "--data", "digits", "--batch", "2,1,28,28"], "--data or --batch, got both"),
        (["signal", "lenet", "--batch", "2,x"], "--batch as sizes of at least 1, got '2,x'"),
        (["signal", "lenet", "--batch", "7"], "--batch as the shape N,... of a batch, got '7'"),
        (["signal", "lenet", "--batch", "0,1,28,28"], "--batch as sizes of at least 1"),
        (["signal", "lenet", "--batch", "4,1,28,28", "--classes", "0"], "--classes of at least 1, got 0"),
        (["signal", "lenet", "--examples", "1"], "--examples of at least 2, got 1"),
        (["signal", "lenet", "--seed", "-1"], "expected --seed to be greater than or equal to 0, got -1"),
        (["signal", "lenet", "--device", "tpu"], "a device of this machine that computes in float32, got 'tpu'"),
        (["signal", "lenet", "--skip", "-1"], "--skip of at least 0, got -1"),
        (["signal", "lennet"], "a known model, got 'lennet'; did you mean lenet?"),
        (["signal", "lenet", "--model-options", "widths=3"], "a known option of model lenet, got 'widths'"),
        (
            ["activations", "users:model", "--batch", "4,1,28,28"],
            "layers that are modules (norm, activation), got none",
        ),
        (["landscape", "lenet", "--lr", "0"], "learning rates above 0"),
        (["landscape", "lenet", "--points", "1"], "--points of at least 2, got 1"),
        (["sharpness", "lenet", "--count", "0"], "--count of at least 1, got 0"),
        (["sharpness", "lenet", "--iterations", "0"], "--iterations of at least 1, got 0"),
        (["sharpness", "lenet", "--output", "x.gif"], "a figure as .png, .svg, .html or .json, got 'x.gif'"),
        (["signal", "users:model_raises", "--batch", "4,4"], "model users:model_raises to build, got RuntimeError"),
        (
            ["signal", "users:model", "--batch", "4,3,28,28"],
            "to take a batch of shape (4, 3, 28, 28), got RuntimeError",
        ),
        (["signal", "users:model_shape", "--batch", "4,1,28,28"], "(N, classes) = (4, 10), got (4, 3)"),
    ],
)
def test_mistakes_are_told_in_one_line(normlab, users, left, arguments, message):
    outcome = normlab("measure", *arguments)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert message in outcome.err
    assert left() == set()


def test_nothing_is_written_and_torchs_settings_stay(normlab, users, left):
    threads = torch.get_num_threads()
    normlab("measure", "signal", "mlp", *SMALL)
    assert left() == set()
    assert torch.get_num_threads() == threads

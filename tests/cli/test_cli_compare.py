"""normlab compare: what was understood, what is said, and that it is a study like any other."""

import json

import pytest

import verdicts
from normlab.lab.compare import MARGIN, answer, compare
from normlab.lab.measures import accuracy
from normlab.lab.rules import equivalent
from normlab.lab.sides import side
from normlab.lab.study import Results
from normlab.report.rows import latex, latex_row, markdown_row
from normlab.store import Runs

HERE = """
from concurrent.futures import ThreadPoolExecutor
def here(): return ThreadPoolExecutor(1)
def build(width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width), nn.Linear(width, 10))
class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.body = build(width)
    def forward(self, x): return self.body(x)
class Norm(nn.BatchNorm2d): pass
class Needs(nn.Module):
    def __init__(self, depth): super().__init__()
from torch.utils.data import DataLoader, TensorDataset
def few(): return {"train": DataLoader(TensorDataset(torch.rand(40, 1, 28, 28), torch.arange(40) % 10), 20)}
def norm_function(num_features): return nn.Identity()
"""
TINY = ("--data", "users:data", "--seeds", 2, "--epochs", 2, "--executor", "users:here", "--workers", 1)


@pytest.fixture(autouse=True)
def here(users):
    with (users / "users.py").open("a") as module:
        module.write(HERE)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("batch", "norm"),
        ("none", "norm"),
        ("lenet", "model"),
        ("torch.nn:BatchNorm2d", "norm"),
        ("users:Norm", "norm"),
        ("users:norm_function", "norm"),
        ("users:Net", "model"),
        ("users:build", "model"),
        ("tried.json", "recipe"),
    ],
)
def test_what_is_understood(users, text, kind):
    (users / "tried.json").write_text('{"lr": 0.1}')
    assert side(text).kind == kind


def test_as_decides(users):
    assert side("users:Norm", "model").kind == "model"
    assert side("users:Needs", "norm").kind == "norm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bacht", "none"], "did you mean batch?"),
        (["batch", "users:Needs"], "got one that needs depth; say which it is: --as norm, or --as model"),
        (["batch", "users:thing"], "expected a callable"),
        (["batch", "users:no_such"], "no such name"),
        (["batch", "batch"], "expected two to compare, got batch twice"),
        (["batch", "lenet", "--data", "digits"], "got batch and lenet, which train the same recipe"),
        (["batch", "nowhere.json"], "got nowhere.json: No such file"),
        (["batch", "bad.json"], "expected bad.json as JSON, got "),
        (["batch", "list.json"], "expected list.json as a JSON object, got a list"),
        (["batch", "field.json"], "did you mean lr?"),
        (["batch", "seed.json"], "expected seed.json without seed, got seed 3; --seeds are both sides' own"),
        (["batch", "value.json"], "expected lr in value.json to be greater than 0, got -1"),
        (["batch", "surgery.json"], "did you mean swap?"),
        (["one.json", "two.json"], "expected both sides on the same data, got digits and digits-8x8"),
        (["lenet", "mlp", "--model", "mlp"], "got two models and --model mlp; leave it out"),
        (["batch", "none", "--margin", 0], "expected a margin between 0 and 1"),
        (["batch", "none", "--lr", -1], "expected --lr to be greater than 0"),
        (["batch", "none", "--seeds", 0], "expected --seeds of at least 1"),
        (["batch", "none", "--plot", "x.gif"], "expected a figure as .png, .svg, .html or .json"),
        (["batch", "none", "--tune", "--data", "users:few"], "validation data in users:few"),
        (["batch"], "OTHER"),
    ],
)
def test_what_cannot_be_compared(normlab, users, arguments, message):
    files = {
        "bad": "{", "list": "[]", "field": '{"lrr": 1}', "seed": '{"seed": 3}', "value": '{"lr": -1}',
        "surgery": '{"surgeries": [{"name": "swp"}]}', "one": '{"data": "digits"}', "two": '{"data": "digits-8x8"}',
    }  # fmt: skip
    for name, content in files.items():
        (users / f"{name}.json").write_text(content)
    outcome = normlab("compare", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not Runs().path.exists()


def test_two_norms(normlab, users):
    dry = normlab("compare", "batch", "users:OtherNorm", *TINY, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.startswith("comparing batch (a norm) with users:OtherNorm (a norm); put to the test: Neither: ")
    assert "4 trials to run with 1 workers" in dry.out
    assert not Runs().path.exists()
    outcome = normlab("compare", "batch", "users:OtherNorm", *TINY, "--plot", "both.svg", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = outcome.json
    assert found.keys() == {
        "one", "other", "key", "answer", "verdict", "n", "effect", "interval", "p", "size", "seconds",
    }  # fmt: skip
    assert (users / "both.svg").read_text().startswith("<svg")
    (verdict,) = Runs().verdicts().values()
    assert verdict.sentence == found["answer"]
    assert [*verdict.arms] == ["batch", "users:OtherNorm"]
    assert all(line in outcome.out for line in (*markdown_row(verdict), *latex_row(verdict)))
    assert "--epochs 2" in verdict.command
    again = normlab("compare", "batch", "users:OtherNorm", *TINY)
    assert "0 trials to run" in again.out
    assert again.last == verdict.sentence
    assert normlab("study", "show", found["key"][:8]).out.startswith(f"{verdict.word}: Which is better, batch or")
    assert normlab("study", "report", "all.md").code == 0
    assert "Which is better, batch or users:OtherNorm?" in (users / "all.md").read_text()


def test_two_models_without_norms_and_two_recipes(normlab, users):
    models = normlab("compare", "users:model", "users:Net", *TINY)
    assert (models.code, models.err) == (0, "")
    (users / "slow.json").write_text('{"lr": 0.01}')
    (users / "adam.json").write_text('{"optimizer": "adamw", "lr": 0.01, "model_options": {"width": 6}}')
    own = ("--model", "users:build", "--model-options", "width=4")
    recipes = normlab("compare", "slow.json", "adam.json", *TINY, *own)
    assert (recipes.code, recipes.err) == (0, "")
    told = {verdict.setting.partition(" on ")[0] for verdict in Runs().verdicts().values()}
    assert told == {"each model", "users:build, width 4"}
    rates = {record.recipe.lr for _, record in Runs().list() if record.recipe.model == "users:build"}
    assert rates == {0.01}
    missing = normlab("compare", "batch", "none", *TINY, "--model", "users:model")
    assert missing.code == 2
    assert "none in users:model" in missing.err


def test_each_at_its_best_rate(normlab, users):
    outcome = normlab("compare", "batch", "none", *TINY, "--tune", "--model", "users:build")
    assert (outcome.code, outcome.err) == (0, "")
    assert "the best of the rates 0.1, 0.316, 1, 3.16, 10" in outcome.out
    (verdict,) = Runs().verdicts().values()
    assert [len(arm.trials[0]) for arm in verdict.arms.values()] == [6, 6]
    assert verdict.command.endswith("--tune --epochs 2")


def test_keys_tell_questions_apart(users):
    (users / "a.json").write_text('{"lr": 0.1}')

    def key(*names, **how):
        return compare([side(name) for name in names], size="quick", data_name="digits", **how).key

    keys = [key("batch", "none"), key("none", "batch"), key("batch", "none", tune=True), key("batch", "a.json")]
    (users / "a.json").write_text('{"lr": 0.2}')
    keys.append(key("batch", "a.json"))
    assert len(set(keys)) == 5
    assert key("batch", "none", margin=0.01) == keys[0], "where a changed margin is told as a changed rule"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([0.9, 0.91, 0.9], [0.8, 0.81, 0.8], "A is better than B by 10.00 points ("),
        ([0.8, 0.81, 0.8], [0.9, 0.912, 0.9], "B is better than A by 10.07 points ("),
        ([0.9, 0.91, 0.92], [0.9001, 0.91, 0.9199], "The same within 0.4 points: "),
        ([0.9, 0.91, 0.92], [0.896, 0.9065, 0.9155], "A is better than B, by 0.40 points ("),
        ([0.9, 0.95, 0.92], [0.92, 0.91, 0.93], "Undecided: A is ahead of B by 0.33 points ("),
        ([0.9], [0.8], "Undecided: fewer than two seeds"),
    ],
)
def test_the_answer_in_one_sentence(a, b, said):
    outcomes = {"accuracy": {"A": dict(enumerate(a)), "B": dict(enumerate(b))}}
    (finding,) = equivalent("accuracy", "A", "B", MARGIN)(outcomes)
    sentence = answer("A", "B", MARGIN, Results([], {"accuracy": accuracy}, outcomes, [finding], {}), finding)
    assert sentence.startswith(said)
    assert sentence.endswith(".")


def test_rows_are_escaped():
    two = verdicts.verdict()
    one, other = two.arms.values()
    hostile = two.model_copy(update={"arms": {verdicts.HOSTILE: one, "b": other}, "setting": verdicts.HOSTILE})
    *_, row = markdown_row(hostile)
    assert "<script" not in row.replace("\\<script", "")
    assert row.replace("\\|", "").count("|") == 10
    assert r"\textless{}script\textgreater{}" in latex_row(hostile)[1]
    assert "\x1b" not in row + latex_row(hostile)[1]
    assert latex("50% & $x_1^2$ {~}#\\") == (
        r"50\% \& \$x\_1\textasciicircum{}2\$ \{\textasciitilde{}\}\#\textbackslash{}"
    )
    assert latex_row(two)[1].startswith(r"with bias & without bias & ")
    assert json.dumps(latex_row(two)[1]).count(" & ") == 8

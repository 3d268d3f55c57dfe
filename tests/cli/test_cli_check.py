"""normlab check: what it says, and by which exit code; every mistake in one line."""

import re

import pytest
import safetensors.torch
import torch
from torch import nn

MODELS = """
from torch import nn

def good(): return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
def noted(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
def bad(groups=8): return nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(groups, 8), nn.ReLU())
def deep(count): return nn.Sequential(*(bad() for _ in range(count)))
def raises(): raise RuntimeError("first line\\nsecond line")

class Two(nn.Module):
    '''Whole numbers and numbers.'''
    def __init__(self):
        super().__init__()
        self.words, self.norm = nn.Embedding(100, 4), nn.LayerNorm(4)
    def forward(self, words, x): return self.norm(self.words(words) + x)

def images():
    import torch
    x, y = torch.rand(40, 3, 8, 8), torch.arange(40) % 10
    return {"train": (x, y), "test": (x, y)}
"""
IMAGES, ROWS = ("--batch", "2,3,8,8"), ("--batch", "5,4")


@pytest.fixture(autouse=True)
def models(users):
    with (users / "users.py").open("a") as file:
        file.write(MODELS)
    return users


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (("good", *IMAGES), 0, []),
        (("noted", *IMAGES), 0, ["NL101"]),
        (("bad", *ROWS), 1, ["NL502", "NL506"]),
        (("bad", *ROWS, "--train"), 1, ["NL502", "NL506"]),
        (("bad",), 0, ["NL506"]),
        (("bad", *ROWS, "--model-options", "groups=2"), 0, []),
        (("bad", *ROWS, "--ignore", "NL502=meant so"), 0, ["NL506"]),
        (("bad", *ROWS, "--ignore", "NL5=meant so"), 0, []),
        (("noted", "--data", "users:images", "--examples", 4), 0, ["NL101"]),
        (("Two", "--batch", "2,5:int64", "2,5,4"), 0, []),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_exit_code_tells(normlab, arguments, code, found):
    outcome = normlab("check", f"users:{arguments[0]}", *arguments[1:], "--select", "NL101", "NL502", "NL506")
    assert (outcome.code, outcome.err) == (code, "")
    assert re.findall(r"^(NL\d+) \w+: ", outcome.out, re.MULTILINE) == found


@pytest.mark.parametrize(
    ("asked", "found"), [(["NL1"], []), (["nl502"], ["NL502"]), (["NL506", "NL502"], ["NL502", "NL506"])]
)
def test_rules_are_selected_by_their_ids_or_the_beginnings(normlab, asked, found):
    outcome = normlab("check", "users:bad", *ROWS, "--select", *asked)
    assert re.findall(r"^(NL\d+) \w+: ", outcome.out, re.MULTILINE) == found


@pytest.mark.parametrize(("count", "lines", "last"), [(9, 9, "8.0: "), (20, 9, "and 12 more alike")])
def test_what_is_found_in_every_layer_is_not_printed_for_all(normlab, count, lines, last):
    arguments = ("check", "users:deep", "--model-options", f"count={count}", "--select", "NL506")
    outcome = normlab(*arguments)
    told = [line for line in outcome.out.splitlines() if line.startswith("    ") and "mend:" not in line]
    assert len(told) == lines
    assert last in told[-1]
    assert len(normlab(*arguments, "--format", "json").json["findings"]) == count


def test_nothing_is_found_in_a_good_model(normlab):
    outcome = normlab("check", "users:good", *IMAGES, "--train")
    assert outcome.out.startswith("nothing found\n")
    assert outcome.code == 0


def test_our_own_models_are_made_for_the_batch(normlab):
    outcome = normlab("check", "resnet8", "--batch", "4,3,32,32")
    assert outcome.out.startswith("nothing found\n")
    assert outcome.code == 0


def test_a_finding_has_its_place_its_numbers_and_what_mends_it(normlab):
    lines = normlab("check", "users:bad", *ROWS, "--select", "NL502").out.splitlines()
    assert lines[0] == "NL502 error: a group norm with one or two values in a group"
    assert lines[1].startswith("    1: 8 channels in 8 groups")
    assert lines[2].startswith("    mend: ")
    assert lines[3] == "1 error, 0 warnings, 0 notes; normlab explain ID tells more."


def test_what_was_not_asked_and_what_was_ignored_is_said(normlab):
    out = normlab("check", "users:noted", "--ignore", "NL101=from the paper").out
    assert "ignored: NL101 (from the paper)\n" in out
    assert re.search(r"^not asked: .*NL502.* \(needs a batch\)$", out, re.MULTILINE)


def test_json_is_one_object(normlab):
    outcome = normlab("check", "users:bad", *ROWS, "--select", "NL502", "--format", "json")
    assert outcome.code == 1
    assert len(outcome.out.splitlines()) == 1
    (found,) = outcome.json["findings"]
    assert (found["id"], found["severity"], found["path"], found["mendable"]) == ("NL502", "error", "1", True)
    assert outcome.json["model"] == "users:bad"
    assert (outcome.json["ignored"], outcome.json["unasked"]) == ({}, {})


def test_pyproject_says_what_is_asked_and_the_command_line_goes_before_it(normlab, models):
    (models / "pyproject.toml").write_text('[tool.normlab.check]\nselect = ["NL502"]\nignore = ["NL101=old"]\n')
    check = ("check", "users:bad", *ROWS, "--format", "json")
    assert [found["id"] for found in normlab(*check).json["findings"]] == ["NL502"]
    assert normlab(*check, "--ignore", "NL502=new").json["ignored"] == {"NL502": "new"}
    assert normlab("check", "users:noted", "--select", "NL101", "--format", "json").json["ignored"] == {
        "NL101": "old"
    }


def test_weights_are_those_of_the_file(normlab, models):
    state = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8)).state_dict()
    safetensors.torch.save_file(state, models / "good.safetensors")
    zero = {name: torch.zeros_like(value) for name, value in state.items()}
    safetensors.torch.save_file(zero, models / "zero.safetensors")
    check = ("check", "users:bad", "--model-options", "groups=2", *ROWS, "--select", "NL510", "--weights")
    assert normlab(*check, "good.safetensors").code == 0
    # Zeros come in too: the norm of zeros is no fault of its weight.
    assert normlab(*check, "zero.safetensors").code == 0
    safetensors.torch.save_file(state | {"1.weight": torch.zeros(8)}, models / "blind.safetensors")
    assert normlab(*check, "blind.safetensors").code == 1
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        safetensors.torch.save_file(
            {prefix + name: value for name, value in state.items()}, models / "wrapped.safetensors"
        )
        assert normlab(*check, "wrapped.safetensors").code == 0


MISTAKES = [
    (("bad", "--batch", "5,x"), "expected --batch as sizes of at least 1, got '5,x'; as 32,3,224,224"),
    (("bad", "--batch", "5,0"), "expected --batch as sizes of at least 1, got '5,0'; as 32,3,224,224"),
    (("bad", "--data", "digits-8x8", "--examples", "0"), "expected --examples of at least 1, got 0"),
    (("bad", "--batch", "5,4:float12"), "expected a known dtype of --batch, got 'float12'"),
    (("bad", "--batch", "5,3"), "expected a model that takes the batch, got RuntimeError: "),
    (("bad", "--batch", "5,4", "5,4"), "expected a model that takes the batch, got TypeError: "),
    (("bad", *ROWS, "--data", "users:images"), "expected --batch or --data, got both"),
    (("bad", "--ignore", "NL502"), "expected a rule to ignore as ID=reason, got 'NL502'"),
    (("bad", "--ignore", "NL502="), "expected a rule to ignore as ID=reason, got 'NL502='"),
    (("bad", "--select", "NX1"), "expected a known rule, got 'NX1'"),
    (("bad", "--format", "xml"), 'Choose from: "text", "json"'),
    (("bad", "--weights", "nowhere.safetensors"), "expected --weights as a safetensors file, got no file nowhere"),
    (("bad", "--weights", "users.py"), "nothing is unpickled here"),
    (("bad", "--weights", "other.safetensors"), "expected the weights of this model in other.safetensors, got Error"),
    (("raises",), "got RuntimeError: first line"),
    (("model_none",), "expected "),
    (("nothing_there",), "no such name in"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_mistakes_are_one_line(normlab, models, arguments, message):
    safetensors.torch.save_file({"weight": torch.ones(2)}, models / "other.safetensors")
    check_fails(normlab("check", f"users:{arguments[0]}", *arguments[1:]), message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool", "expected pyproject.toml as TOML, got TOMLDecodeError: "),
        ("[tool.normlab.check]\nselekt = []", "did you mean select?"),
        ("[tool.normlab.check]\nselect = 'NL1'", "expected select in [tool.normlab.check] as a list of strings"),
        ("[tool.normlab.check]\nignore = ['NL101']", "expected a rule to ignore as ID=reason, got 'NL101'"),
        ("[tool]\nnormlab = 3", "expected normlab in pyproject.toml as a table, got 3"),
    ],
)
def test_mistakes_of_pyproject(normlab, models, text, message):
    (models / "pyproject.toml").write_text(text)
    check_fails(normlab("check", "users:good"), message)


def check_fails(outcome, message):
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("normlab: ")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "a bug of normlab" not in outcome.err

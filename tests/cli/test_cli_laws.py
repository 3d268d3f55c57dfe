import pytest

USERS_NORMS = """
import torch

class Right(torch.nn.Module):
    kind = "tanh"
    def __init__(self, num_features):
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.tensor(0.5))
    def forward(self, x): return torch.tanh(self.alpha * x)

class Wrong(Right):
    kind = "frozen"
    def forward(self, x): return 1.1 * super().forward(x) + 0.1

class Kindless(torch.nn.Tanh):
    def __init__(self, num_features): super().__init__()

def raises(num_features): raise RuntimeError("first line")
"""


@pytest.fixture
def norms(users):
    (users / "users.py").write_text(USERS_NORMS)


def test_the_bare_command_lists_the_laws(normlab):
    outcome = normlab("laws")
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = (line.split("\t") for line in outcome.out.splitlines())
    assert header == ["law", "formula", "tolerance", "kinds"]
    assert len(rows) >= 30
    assert [row["law"] for row in normlab("laws", "--json").json] == [row[0] for row in rows]


def test_a_layer_that_keeps_the_laws(normlab, norms):
    outcome = normlab("laws", "users:Right")
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = (line.split("\t") for line in outcome.out.splitlines())
    assert header == ["law", "float64", "float32", "why", "formula"]
    by_law = {row[0]: row[1:] for row in rows}
    assert by_law["odd-about-a-constant"][:2] == ["pass", "pass"]
    assert by_law["zero-mean"][:3] == ["does not apply", "does not apply", "not a law of tanh"]
    assert by_law["bounded-by-gamma"][2] == "it has no weight"


def test_a_broken_law_is_exit_code_1_and_says_what_was_expected(normlab, norms):
    outcome = normlab("laws", "users:Wrong", "--json")
    assert (outcome.code, outcome.err) == (1, "")
    broken = {row["law"] for row in outcome.json if row["outcome"] == "fail"}
    assert broken == {"affine-in-its-input", "nonfinite-batches-are-left-out"}
    table = normlab("laws", "users:Wrong", "--kind", "batch")
    assert table.code == 1
    (row,) = [line.split("\t") for line in table.out.splitlines() if line.startswith("zero-mean\t")]
    assert row[1] == row[2] == "fail"
    assert "expected 0 within" in row[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("users:Kindless",), "kind"),
        (("users:Right", "--kind", "tahn"), "did you mean tanh?"),
        (("users:raises", "--kind", "any"), "RuntimeError: first line"),
        (("users:nothing",), "no such name"),
        (("bacth",), "did you mean batch?"),
        (("batch", "--dim", "4"), "--dim 1, 2, 3"),
    ],
)
def test_bad_input_is_exit_code_2_in_one_line(normlab, norms, arguments, message):
    outcome = normlab("laws", *arguments)
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1)
    assert message in outcome.err

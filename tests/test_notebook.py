"""Studies from Python: what a cell shows, and what is refused."""

import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest

import normlab
import verdicts
from normlab import notebook
from normlab.errors import NormlabError
from normlab.report.output import html
from normlab.report.text import lines
from normlab.store import Runs

MINE = """
import numpy as np
from torch import nn
draw = np.random.default_rng(0)
X, Y = draw.random((40, 1, 28, 28), dtype="float32"), np.arange(40) % 10
def data(): return {"train": (X, Y), "test": (X[:20], Y[:20])}
def build(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width), nn.Linear(width, 10))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's in the working directory, and trials in this process."""
    (tmp_path / "mine_to_ask.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(notebook, "local", lambda workers: lambda: ThreadPoolExecutor(workers))
    yield tmp_path
    sys.modules.pop("mine_to_ask", None)


def test_a_study_is_run_and_shown(mine, capsys):
    question = normlab.study("bias")
    assert repr(question).startswith("study bias: Can the bias of the layer")
    own = {"model": "mine_to_ask:build", "model_options": {"width": 6}, "data": "mine_to_ask:data"}
    answer = question.run(seeds=2, workers=1, **own)
    (kept,) = Runs().verdicts().values()
    assert answer.verdict == kept
    assert repr(answer) == f"{kept.word}: {kept.sentence}"
    assert str(answer).splitlines() == lines(kept)
    assert kept.command == (
        "normlab study run bias --size quick --model mine_to_ask:build --data mine_to_ask:data --seeds 2 "
        "--model-options width=6"
    )
    shown = answer._repr_html_()
    assert shown.count("data:image/svg+xml;base64,") == len(kept.figures) == 2
    assert "4/4" in capsys.readouterr().err
    again = question.run(seeds=2, workers=1, store=Runs().path, **own)
    assert again.verdict == kept
    assert "/4" not in capsys.readouterr().err, "nothing is run twice"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"size": "quik"}, "did you mean quick?"),
        ({"seeds": 0}, "seeds of at least 1, got 0"),
        ({"workers": 0}, "workers of at least 1, got 0"),
        ({"model": lambda: None}, "model by name, or as 'pkg.module:callable', got a function; put it into a file"),
        ({"model": "lenett"}, "did you mean lenet?"),
        ({"norm": "bacht", "data": "digits"}, "did you mean batch?"),
        ({"data": "digits", "model_options": {"biass": 1}}, "did you mean bias?"),
    ],
)
def test_what_cannot_be_asked(how, message):
    with pytest.raises(NormlabError, match=r"^expected ") as raised:
        normlab.study("bias").run(**how)
    assert message in str(raised.value)
    assert not Runs().path.exists()


def test_no_such_study():
    with pytest.raises(NormlabError, match="did you mean bias"):
        normlab.study("bais")


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found |= {tag, *(name for name, _ in attributes)}


@pytest.mark.parametrize("verdict", verdicts.all_of_them(), ids=lambda verdict: verdict.study)
def test_nothing_that_a_user_named_is_markup(verdict):
    allowed = {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img"}
    allowed |= {"code", "class", "style", "alt", "src"}
    assert Tags(html(verdict)).found <= allowed


def test_few_names_at_the_top():
    assert "study" in normlab.__all__
    assert len(normlab.__all__) <= 12

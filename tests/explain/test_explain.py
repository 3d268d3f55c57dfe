"""What explanations must look like, the pictures, the page, and the command."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from normlab.cli import main
from normlab.errors import NormlabError
from normlab.explain import picture, rules, topics
from normlab.explain.page import family_page
from normlab.explain.prose import parse
from normlab.nn import make_norm, norm_names
from normlab.studies import names as study_names

ROOT = Path(__file__).parent.parent.parent
NORMS, WORDS, TOPICS = topics.norms(), topics.words(), topics.topics()
COLUMNS = 80

FORM = """Name: what it is
    in a line.

    y = x

      and = more

Words of a
paragraph: not a label.

    z = y

Over: this
    and that.
Cost: 1 reading.
"""


def test_the_form_is_read_as_it_is_meant():
    prose = parse(FORM)
    assert (prose.title, prose.summary) == ("Name", "what it is in a line.")
    assert prose.blocks == ("    y = x", "    and = more", "Words of a paragraph: not a label.", "    z = y")
    assert prose.labels == {"Over": "this and that.", "Cost": "1 reading."}


def test_a_label_that_goes_on_must_be_indented():
    with pytest.raises(ValueError, match="or an indented line, got 'and that'"):
        parse("Name: what.\n\nOver: this\nand that")


# Every file of norms/ that has a FAMILY or labels, and every file of texts/: a new one is found, and held to this.


@pytest.mark.parametrize("topic", [*NORMS.values(), *WORDS.values()], ids=lambda topic: topic.name)
def test_a_topic_has_its_parts(topic):
    prose = topic.prose
    assert prose.title
    assert prose.summary.endswith(".")
    assert len(prose.summary) < 120, "it is a line of the list"
    assert any(block.startswith(" ") for block in prose.blocks), "a formula"
    assert any(not block.startswith(" ") for block in prose.blocks), "words"
    needed = {"Over", "When", "Source", "Cost" if topic in NORMS.values() else "See"}
    assert needed <= prose.labels.keys()
    assert re.search(r"\b(1[89]|20)\d\d\b", prose.labels["Source"]), "a year"


@pytest.mark.parametrize("name", TOPICS)
def test_what_a_topic_refers_to_is_there(name):
    labels = TOPICS[name].prose.labels
    see = labels["See"].split(", ") if "See" in labels else []
    assert {*see, *TOPICS[name].picture} <= TOPICS.keys()
    assert {*labels.get("Ask", "bias").split(", ")} <= {*study_names()}
    assert name not in see


def test_every_norm_that_can_be_made_is_explained_by_its_own_file():
    assert {name for name, topic in NORMS.items() if topic.made} == {*norm_names()} - {"none"}
    for name, topic in NORMS.items():
        module = importlib.import_module(f"normlab.norms.{topic.source.stem}")
        assert name in getattr(module, "FAMILY", {topic.source.stem.replace("_", "-")})
    assert next(iter(NORMS)) == "batch"


def test_the_cloud_has_the_statistics_it_is_said_to_have():
    flat = picture.cloud().transpose(0, 1).reshape(2, -1).double()
    torch.testing.assert_close(flat.mean(1), torch.tensor([0.9, 0.6]).double(), atol=1e-6, rtol=0)
    wanted = torch.tensor([[0.8**2, 0.8 * 0.8 * 0.4], [0.8 * 0.8 * 0.4, 0.4**2]]).double()
    torch.testing.assert_close(flat.cov(correction=0), wanted, atol=1e-6, rtol=0)


def panel(lines, number):
    """The lines of one panel, without its title and statistics."""
    start = number * (picture.COLUMNS + len(picture.GAP))
    return [line[start : start + picture.COLUMNS].ljust(picture.COLUMNS) for line in lines][1 : 1 + picture.ROWS]


def test_a_panel_shows_every_point_where_it_is():
    lines = picture.picture({"none": {}, "batch": {}})
    assert panel(lines, 0) == panel(lines, 1)
    points = make_norm("batch", 2, 1)(picture.cloud()).detach()
    expected = {}
    for image, mark in zip(points, "ox", strict=True):
        for x, y in image.T.tolist():
            place = (6 - round(y / 3 * 6), 12 + round(x / 3 * 12))
            expected[place] = "8" if expected.get(place, mark) != mark else mark
    found = {
        (row, column): character
        for row, line in enumerate(panel(lines, 2))
        for column, character in enumerate(line)
        if character in "ox8"
    }
    assert found == expected
    assert re.search(r"mean +0\.90 +0\.60 +mean +0\.90 +0\.60 +mean +0\.00 +0\.00$", lines[-3])
    assert re.search(r"deviation +0\.80 +0\.40 .* deviation +1\.00 +1\.00$", lines[-2])
    assert re.search(r"correlation +0\.80 .* correlation +0\.80$", lines[-1])


@pytest.mark.parametrize(("width", "panels"), [(20, 1), (53, 2), (79, 3), (200, 3)])
def test_as_many_panels_as_fit_stand_side_by_side(width, panels):
    lines = picture.picture({"none": {}, "batch": {}}, width)
    assert lines[0].count(" to ") == panels
    assert max(map(len, lines)) <= max(width, picture.COLUMNS)
    assert sum(line.count(" to ") for line in lines) == 3


def test_options_reach_the_layer_and_draws_leave_no_trace():
    state = torch.get_rng_state()
    plain, wide = picture.picture({"batch": {}}), picture.picture({"batch": {"eps": 1e9}})
    assert torch.equal(state, torch.get_rng_state())
    assert plain != wide
    topic = topics.Topic("x", parse("X: y.\n\nPicture: batch, ghost ghost_size=1 x=true"), Path())
    assert topic.picture == {"batch": {}, "ghost": {"ghost_size": 1, "x": True}}
    with pytest.raises(NormlabError, match="did you mean batch"):
        picture.picture({"bacth": {}})


@pytest.mark.parametrize("name", [name for name in TOPICS if TOPICS[name].picture])
def test_every_picture_can_be_drawn(name):
    lines = picture.picture(TOPICS[name].picture)
    assert max(map(len, lines)) <= COLUMNS
    assert not any("nan" in line for line in lines)


def test_the_page_of_the_family_is_up_to_date():
    """If not: normlab explain --output docs/family.md."""
    assert (ROOT / "docs" / "family.md").read_text() == family_page()


def test_the_page_links_every_norm_to_its_section():
    page = family_page()
    for name in NORMS:
        target = re.search(rf"\[{name}\]\(#([\w-]+)\)", page)[1]
        assert page.count(f'<a id="{target}"></a>') == 1


def told(capsys, *arguments, code=0):
    """What the command prints, in this process."""
    try:
        main(["explain", *map(str, arguments)])
    except SystemExit as ended:
        code -= ended.code or 0
    assert code == 0
    return "".join(capsys.readouterr())


def test_bare_it_lists_every_topic(capsys):
    listed = re.findall(r"^  (\S+) ", told(capsys), re.MULTILINE)
    assert listed == [*(name for name in NORMS if name not in WORDS), *WORDS, *rules.rules()]


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_told_with_its_picture_within_eighty_columns(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    text = told(capsys, name)
    prose = TOPICS[name].prose
    assert max(map(len, text.splitlines())) <= COLUMNS
    squeezed = " ".join(text.split())
    for part in (prose.title, *prose.blocks, *(prose.labels[each] for each in ("Over", "When", "Source"))):
        assert " ".join(part.split()) in squeezed
    assert ("correlation" in text.splitlines()[-3]) == bool(TOPICS[name].picture)


def test_a_topic_of_several_words(capsys):
    assert told(capsys, "Running", "statistics") == told(capsys, "running_statistics") != ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["whitning"], "expected a known topic, got 'whitning'; did you mean whitening?"),
        (["momentum", "--output", "x.md"], "expected a topic, --rules or --output, got a topic and one of these"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    assert message in told(capsys, *arguments, code=2)


def test_the_page_is_written_where_it_is_told(capsys, tmp_path):
    told(capsys, "--output", tmp_path / "family.md")
    assert (tmp_path / "family.md").read_text() == family_page()


def test_a_terminal_without_unicode_sees_all_of_it():
    done = subprocess.run(
        [sys.executable, "-m", "normlab", "explain", "batch"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\" not in done.stdout

"""Every figure compiles, draws every number it was given, and can be read in the dark and at 400 pixels."""

import json
import math
import xml.etree.ElementTree as ElementTree

import altair
import pytest
import vl_convert

from normlab.lab import figure, look
from normlab.store import Finding

SEEDS = {0: 0.81, 1: 0.83, 2: 0.845}
LONG = "a very long name of an arm, " * 4 + "</script>"


def finding(rule="accuracy: a minus b is above 0", word="supported", effect=0.0123, **more):
    told = {"measure": "accuracy", "n": 5, "low": 0.0017, "high": 0.0231, "p": 0.03} | more
    return Finding(rule=rule, word=word, effect=effect, **told)


# Name to the figure, and the numbers that must be in it.
FIGURES = {
    "points": (
        figure.points(
            "Accuracy",
            {"BN": SEEDS, "none": {0: 0.5}, LONG: {}},
            axis="accuracy",
            percent=True,
            unusable={"none": 2, "gone": 3},
        ),
        {"value": [0.81, 0.83, 0.845, 0.5]},
    ),
    "points of 53 arms": (
        figure.points("Many", {f"arm {i}": {0: i / 53, 1: i / 50} for i in range(53)}, axis="y", percent=False),
        {"value": [value for i in range(53) for value in (i / 53, i / 50)]},
    ),
    "sweep": (
        figure.sweep(
            "Rates", {"BN": {0.1: SEEDS, 1.0: {0: 0.9}}, "none": {0.1: {0: 0.4}}}, x="rate", axis="y", percent=True
        ),
        {"value": [0.81, 0.83, 0.845, 0.9, 0.4], "x": [0.1, 0.1, 0.1, 1.0, 0.1]},
    ),
    "sweep from zero": (
        figure.sweep("Rates", {"BN": {0.0: SEEDS}}, x="rate", axis="y", percent=False),
        {"value": [0.81, 0.83, 0.845]},
    ),
    "curves": (
        figure.curves(
            "Curves",
            {"BN": {0: [(1, 0.5), (2, 0.6)], 1: [(1, 0.55), (2, 0.65)]}, "none": {0: [(1, 0.2), (2, math.nan)]}},
            x="epoch",
            axis="accuracy",
            percent=True,
        ),
        {"value": [0.5, 0.6, 0.55, 0.65, 0.2]},
    ),
    "percentiles": (
        figure.percentiles(
            "Drift", {"BN": [(0, -1, 0, 1), (5, -2, 0.5, 2)], LONG: [(0, -1, 0, 1)]}, x="step", axis="input"
        ),
        {"low": [-1, -2, -1], "middle": [0, 0.5, 0], "high": [1, 2, 1]},
    ),
    "effects": (
        figure.effects(
            "Effects",
            [
                finding(),
                finding(word="contradicted", effect=-0.02),
                finding(word="answered", low=None, high=None),
                finding(rule=LONG, word="inconclusive", effect=None, low=None, high=None, n=1, p=None),
            ],
            margin=0.004,
            percent=True,
        ),
        {"effect": [0.0123, -0.02, 0.0123], "at": [-0.004, 0, 0.004]},
    ),
    "paths": (
        figure.paths("Paths", {"gamma": [(0, 1.0), (1, 1.5)], "beta": [(0, 0.0)]}, x="step", axis="value"),
        {"value": [1.0, 1.5, 0.0]},
    ),
    "scatter": (
        figure.scatter("Nets", {"mlp": (0.1, 2.0), "lenet": (3.0, 9.0), "nan": (1, math.nan)}, x="2/λ", axis="rate"),
        {"x": [0.1, 3.0], "value": [2.0, 9.0]},
    ),
    "nothing at all": (figure.points("Nothing", {"BN": {}}, axis="y", percent=False), {"value": []}),
}


def datasets(spec):
    if isinstance(spec, dict):
        if isinstance(spec.get("data"), dict):
            yield spec["data"]["values"]
        for value in spec.values():
            yield from datasets(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from datasets(value)


@pytest.mark.parametrize("name", FIGURES)
def test_holds_every_number(name):
    drawn, expected = FIGURES[name]
    for field, numbers in expected.items():
        kept = [[row[field] for row in rows if field in row] for rows in datasets(drawn.spec)]
        assert numbers in kept or numbers == [number for each in kept for number in each]


@pytest.mark.parametrize("name", FIGURES)
def test_compiles_and_says_what_it_is(name):
    drawn, _ = FIGURES[name]
    altair.Chart.from_dict(drawn.spec)  # raises where it is not as the schema says
    svg = vl_convert.vegalite_to_svg(drawn.spec)
    assert "Infinity" not in svg
    assert "NaN" not in svg
    assert drawn.spec["description"] == f"{drawn.title}. {drawn.description}"
    json.dumps(drawn.spec, allow_nan=False)


def marks(name, label):
    """The labels of the marks of a drawing that a screen reader reads."""
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(FIGURES[name][0].spec))
    return [text for element in root.iter() if label in (text := element.get("aria-label") or "")]


def test_every_seed_is_a_mark():
    assert len(marks("points", "seed: ")) == 4
    assert len(marks("points of 53 arms", "seed: ")) == 106
    assert len(marks("sweep", "seed: ")) == 5


def test_an_arm_tells_its_unusable_seeds():
    svg = vl_convert.vegalite_to_svg(FIGURES["points"][0].spec)
    assert "none · 2 unusable" in svg
    assert "gone · 3 unusable" in svg


def test_curves_have_a_mean_only_where_every_seed_has_a_value():
    both = {"BN": {0: [(1, 0.5), (2, 0.6)], 1: [(1, 0.7)]}}
    drawn = figure.curves("Curves", both, x="epoch", axis="y", percent=False)
    means = [row for rows in datasets(drawn.spec) for row in rows if "mean" in row]
    assert {row["x"] for row in means} == {1}
    assert means[0]["mean"] == pytest.approx(0.6)


def test_curves_of_one_epoch_are_points():
    def drawn(line):
        curves = figure.curves("Curves", {"BN": {0: line, 1: line}}, x="epoch", axis="y", percent=True)
        return [layer["mark"].get("point") for layer in curves.spec["layer"] if layer["mark"]["type"] == "line"]

    assert drawn([(1, 0.5)]) == [True, True]
    assert drawn([(1, 0.5), (2, 0.6)]) == [False, False]


@pytest.mark.parametrize("name", FIGURES)
def test_leaves_the_background_to_the_page_and_fits_its_width(name):
    spec = FIGURES[name][0].spec
    assert "background" not in spec
    assert spec.get("width") == "container" or all(view["width"] > 0 for view in spec["vconcat"])


def test_no_two_of_36_lines_look_the_same():
    names = [f"arm {i}" for i in range(36)]
    colors, dashes = (channel(names).to_dict()["scale"]["range"] for channel in (look.color, look.dash))
    assert len({(color, tuple(dash)) for color, dash in zip(colors, dashes, strict=True)}) == 36


def test_the_same_values_give_the_same_figure():
    first, again = (figure.points("t", {"BN": SEEDS}, axis="y", percent=True) for _ in range(2))
    assert first.model_dump_json() == again.model_dump_json()

"""The HTML curve in a real browser, from the disk."""

import html
import re

import pytest

import records
from normlab.report.curve import curve
from normlab.report.figure import save


def test_a_console_error_would_be_seen(open_page, tmp_path):
    (tmp_path / "page.html").write_text("<script>nothing.there</script>")
    _, console = open_page(tmp_path / "page.html")
    assert "nothing is not defined" in "".join(console)


@pytest.mark.parametrize(
    "record",
    [
        records.record(10, validation=True, model="</script><!--<script>'\"&amp;{x}", data="[red]größe"),
        records.record(1, nonfinite=True, test=False),
    ],
    ids=["odd names", "broke off at once"],
)
def test_the_curve_is_drawn_without_a_complaint(open_page, tmp_path, record):
    path = tmp_path / "curve.html"
    save(curve(record), path, f"{record.recipe.model}: normlab")
    dom, console = open_page(path)
    assert console == []
    page = html.unescape(dom)
    assert f"<title>{record.recipe.model}: normlab</title>" in page
    drawing = html.unescape(dom[dom.index("<svg") :])
    assert record.recipe.model in drawing
    assert record.recipe.data in drawing
    points = set(re.findall(r'aria-label="epoch: (\d+); accuracy: [\d.]+; series: ([^"]+)"', drawing))
    per_epoch = 1 if record.result.nonfinite else 3
    assert len(points) == len(record.result.epochs) * per_epoch + (record.result.precise is not None)

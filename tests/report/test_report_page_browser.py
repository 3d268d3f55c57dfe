"""The page in a real browser, from the disk."""

import html
import re

import pytest

import verdicts
from normlab.report.page import html as page


@pytest.fixture(scope="module")
def opened(open_page, tmp_path_factory):
    """The DOM and the console of the page of all verdicts."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(verdicts.all_of_them()), encoding="utf-8")
    return open_page(path)


def test_every_chart_is_drawn_without_a_complaint(opened):
    dom, console = opened
    # An attempt to load anything would be one, by the content security policy.
    assert console == []
    assert dom.count("could not be drawn") == 1, "in the script alone"
    assert len(re.findall(r"<svg[^>]* class=\"marks\"", dom)) == sum(
        len(verdict.figures) for verdict in verdicts.all_of_them()
    )
    assert "NaN" not in re.sub(r"<script>.*?</script>", "", dom, flags=re.DOTALL)


def test_an_attempt_to_load_something_would_be_seen(open_page, tmp_path):
    loading = page([verdicts.verdict()]).replace("<main>", "<main><img src='http://localhost:9/x.png'>")
    (tmp_path / "page.html").write_text(loading, encoding="utf-8")
    _, console = open_page(tmp_path / "page.html")
    assert "Content Security Policy" in "".join(console)


def test_a_script_that_is_not_ours_does_not_run(open_page, tmp_path):
    foreign = page([verdicts.verdict()]).replace("<main>", "<main><script>document.title = 'taken'</script>")
    (tmp_path / "page.html").write_text(foreign, encoding="utf-8")
    dom, console = open_page(tmp_path / "page.html")
    assert "<title>taken" not in dom
    assert "Content Security Policy" in "".join(console)


def test_a_chart_that_cannot_be_drawn_leaves_the_others(open_page, tmp_path):
    good = verdicts.verdict().figures
    broken = good[0].model_copy(update={"spec": {"mark": {"type": "no such mark"}, "data": {"values": []}}})
    (tmp_path / "page.html").write_text(page([verdicts.verdict(figures=(broken, *good))]), encoding="utf-8")
    dom, _ = open_page(tmp_path / "page.html")
    assert "its numbers stand below" in html.unescape(dom[: dom.index("<script>")])
    assert len(re.findall(r"<svg[^>]* class=\"marks\"", dom)) == len(good)


def shown(dom):
    """The sections that are not hidden."""
    sections = re.findall(r"<section [^>]*>", dom)
    return [re.search(r'id="([^"]*)"', each)[1] for each in sections if " hidden" not in each]


def test_one_section_is_shown_at_a_time(opened):
    assert shown(opened[0]) == ["thread"]


@pytest.mark.parametrize(
    ("fragment", "section"),
    [
        ("#affine-paths-quick", "affine-paths-quick"),
        ("#bias-quick--2-figure-2", "bias-quick--2"),
        ("#nowhere", "thread"),
        ("#%F0%28%8C", "thread"),
    ],
)
def test_a_link_shows_its_section(open_page, tmp_path, fragment, section):
    light = [verdict.model_copy(update={"figures": verdict.figures[:1]}) for verdict in verdicts.all_of_them()]
    light[1] = verdicts.all_of_them()[1]
    (tmp_path / "page.html").write_text(page(light), encoding="utf-8")
    dom, console = open_page(tmp_path / "page.html", fragment)
    assert console == []
    assert shown(dom) == [section]


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize(
    "verdict", [verdicts.verdict(), verdicts.many(), verdicts.hostile()], ids=["few", "many", "odd"]
)
def test_the_page_is_never_wider_than_the_window(open_page, tmp_path, verdict, width):
    size = "`${document.documentElement.scrollWidth} of ${innerWidth}`"
    told = f"<script>setTimeout(() => {{ document.title = {size} }}, 4000)</script>"
    measured = re.sub(r"<meta http-equiv[^>]*>", "", page([verdict])) + told
    (tmp_path / "page.html").write_text(measured, encoding="utf-8")
    dom, console = open_page(tmp_path / "page.html", width=width)
    assert console == []
    taken, room = map(int, re.search(r"<title>(\d+) of (\d+)</title>", dom).groups())
    assert taken <= room <= max(width, 500)


def test_every_chart_fits_its_column(opened):
    widths = [float(width) for width in re.findall(r"<svg[^>]* class=\"marks\" width=\"([\d.]+)\"", opened[0])]
    assert widths
    assert max(widths) <= 60 * 16 - 32 + 1

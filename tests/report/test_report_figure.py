import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import records
from normlab.errors import NormlabError
from normlab.report.curve import curve
from normlab.report.figure import check_target, save


@pytest.fixture(scope="module")
def chart():
    return curve(records.record())


def test_png(chart, tmp_path):
    save(chart, tmp_path / "curve.png", "title")
    content = (tmp_path / "curve.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    assert 1100 < width < 1600, "twice the pixels, for print"
    assert 800 < height < 1300


def test_svg_draws_every_series_and_says_what_it_is(chart, tmp_path):
    save(chart, tmp_path / "curve.svg", "title")
    root = ElementTree.fromstring((tmp_path / "curve.svg").read_text(encoding="utf-8"))
    texts = {element.text for element in root.iter() if element.text}
    assert {"lenet on fashion-mnist", "epoch", "accuracy", "training loss (nats)", "1", "2", "3"} <= texts
    assert {"training, as the weights move", "test, running statistics", "test, recomputed statistics"} <= texts
    labels = [element.get("aria-label") or "" for element in root.iter()]
    assert any(label.startswith("epoch: 3; accuracy: ") for label in labels), "points that a screen reader reads"
    colors = {element.get("stroke") for element in root.iter()}
    assert {"#0072B2", "#D55E00"} <= colors


def test_html_may_ask_the_network_for_nothing(chart, tmp_path):
    save(chart, tmp_path / "curve.html", "title")
    page = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy\"\ncontent=\"default-src 'none';" in page
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"src=|href=|@import|url\(", own)


def test_html_takes_any_title(tmp_path):
    odd = "</script><!--<script>\"'&<b>{0}"
    safe = "&lt;/script&gt;&lt;!--&lt;script&gt;&quot;&#x27;&amp;&lt;b&gt;{0}"
    save(curve(records.record(model=odd)), tmp_path / "curve.html", odd)
    page = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script") == 2
    assert "<!--" not in page
    assert f"<title>{safe}</title>" in page
    assert f'aria-label="Training loss and accuracies of {safe} on fashion-mnist over epochs 1 to 3"' in page


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.html", "A.PNG", "[red] ü.html"])
def test_a_target_that_will_do(tmp_path, name):
    check_target(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.gif", "a figure as .png, .svg, .html or .json, got '.*a.gif'"),
        ("a", "a figure as .png, .svg, .html or .json, got '.*a'"),
        (".png", "a figure as .png, .svg, .html or .json, got '.*png'"),
        ("nowhere/a.png", "a folder that is there, got .*nowhere; make it first"),
        ("folder.png", "a figure as a file, got the folder .*folder.png"),
        ("file/a.png", "a folder that is there, got .*file; make it first"),
    ],
)
def test_a_target_that_will_not_do_is_told_before_the_training(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(NormlabError, match=message):
        check_target(tmp_path / name)


def test_a_folder_without_rights(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))  # root has all rights
    with pytest.raises(NormlabError, match=r"a folder that may be written to, got .*; name another"):
        check_target(tmp_path / "a.png")


def test_a_full_disk_leaves_the_old_figure(tmp_path):
    pytest.importorskip("resource", reason="Windows has no such limit")
    path = tmp_path / "curve.html"
    path.write_bytes(b"old")
    code = f"""
import pathlib, resource, sys
sys.path.append({str(Path(records.__file__).parent)!r})
import records
from normlab.report.curve import curve
from normlab.report.figure import save
chart = curve(records.record())
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save(chart, pathlib.Path(sys.argv[1]), "title")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout == (
        f"NormlabError expected to write the figure {path}, got File too large; free the disk, or name another file\n"
    )
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_report_needs_no_torch():
    code = "import sys, normlab.report.curve, normlab.report.figure; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("ending", [".svg", ".png", ".html"])
def test_a_control_character_in_a_name_ends_nothing(tmp_path, ending):
    """vl-convert would abort the process at an escape in a text that it draws."""
    save(curve(records.record(model="a\x1b[31m\u2028b")), tmp_path / f"curve{ending}", "title")
    assert (tmp_path / f"curve{ending}").stat().st_size > 1000

"""The page: whole, safe, accessible, the same twice. How it looks in a browser: test_report_page_browser."""

import html.parser
import itertools
import json
import re
import subprocess
import sys

import pytest

import verdicts
from normlab.lab import figure as figures
from normlab.report.page import html as page
from normlab.report.thread import THREAD

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """A page's elements with their attributes and own text; every tag must be closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "inside": [each["tag"] for each in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [
            each
            for each in self.elements
            if each["tag"] == tag and all(each.get(name) == value for name, value in attributes.items())
        ]


@pytest.fixture(scope="module")
def whole():
    return page(verdicts.all_of_them())


@pytest.fixture(scope="module")
def read(whole):
    return Reader(whole)


def test_every_line_of_the_thread_has_an_answer_or_a_command(read):
    lines = [each["text"] for each in read.all("li") if "section" in each["inside"] and each["inside"][-1] == "ol"]
    assert len(lines) == len(THREAD) == 14
    for text, line in zip(lines, THREAD, strict=True):
        assert line.question in text
        assert ("The evidence: " in text) != ("Not measured yet" in text)
    assert "supported Without the bias" in lines[0]
    assert "normlab study run learning-rates" in lines[1]
    assert "normlab study run provenance" in lines[1]
    assert "The evidence: transforms" in lines[8]
    assert "The evidence: transforms" in lines[11]


def test_every_link_leads_somewhere_within_the_page(read):
    ids = [each["id"] for each in read.elements if "id" in each]
    assert len(set(ids)) == len(ids)
    links = [each["href"] for each in read.all("a")]
    assert len(links) > 20
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    named = [each["aria-labelledby"] for each in read.elements if "aria-labelledby" in each]
    assert set(named) <= set(ids)


def test_verdicts_of_one_study_on_other_data_are_told_apart_by_their_setting():
    other = Reader(page([verdicts.verdict(), verdicts.verdict(key="other", setting="lenet on digits")]))
    answers = [each["text"] for each in other.all("div", **{"class": "answer"})]
    assert [" ".join(text.split()).count("size quick; lenet on ") for text in answers] == [1, 1]


def test_one_verdict_alone_has_no_thread():
    read = Reader(page([verdicts.verdict()]))
    assert [each["id"] for each in read.all("section")] == ["bias-quick"]
    assert read.all("a") == read.all("nav") == []
    assert read.all("title")[0]["text"] == "Can the bias of the layer before batch normalization be removed?"


def test_without_a_verdict_there_are_the_questions():
    read = Reader(page([]))
    assert len(read.all("section")) == 1
    assert sum("Not measured yet" in each["text"] for each in read.all("li")) == 14


def test_a_section_tells_all_that_the_verdict_knows():
    verdict = verdicts.nothing()
    text = " ".join(Reader(page([verdict])).all("section")[0]["text"].split())
    told = [verdict.question, verdict.claim, verdict.source, verdict.setting, verdict.sentence, verdict.command]
    told += [finding.rule for finding in verdict.findings]
    told += ["The rules were changed.", "largest rate: BN is at least 10 times none", "0 of 2"]
    told += [
        "largest usable rate: no trial gave a value.",
        "seed 0: at chance",
        "seed 1: failed: OOM",
        "cores",
        "a CPU",
        "2.13.0",
    ]
    for each in told:
        assert each in text
    assert "They were fixed before the first trial" not in text


@pytest.mark.parametrize("verdict", verdicts.all_of_them(), ids=lambda each: each.study[:12])
def test_every_number_stands_in_a_table_of_the_page(verdict):
    cells = {cell["text"] for cell in Reader(page([verdict])).all("td")}
    for measure in verdict.measures.values():
        for value in itertools.chain.from_iterable(seeds.values() for seeds in measure.values.values()):
            assert (f"{100 * value:.2f} %" if measure.percent else f"{value:.3g}") in cells
    for finding in verdict.findings:
        assert str(finding.n) in cells


def test_tables_are_named_and_have_heads(read):
    tables = read.all("table")
    assert len(read.all("caption")) == len(tables) > 20
    assert all(each["text"].strip() for each in read.all("caption"))
    heads = read.all("th")
    assert heads
    assert all(each["scope"] in ("col", "row") for each in heads)
    assert all("tabindex" in each for each in read.all("div", role="region"))


def test_figures_say_what_they_show(read):
    charts = [each for each in read.all("div") if each.get("class") == "chart"]
    assert len(charts) == sum(len(verdict.figures) for verdict in verdicts.all_of_them())
    assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in charts)


def test_the_charts_are_the_verdicts(read):
    specs = [json.loads(each["text"]) for each in read.all("script", type="application/json")]
    drawn = json.dumps([figure.spec for verdict in verdicts.all_of_them() for figure in verdict.figures])
    assert specs == json.loads(drawn.replace("\\u2028", " "))


def test_words_of_others_stay_words(read, whole):
    assert len(read.all("script")) == 2 + len(read.all("script", type="application/json"))
    assert not read.all("b", **{"aria-hidden": None})
    hostile = read.all("section")[-1]
    assert hostile["text"].count("<script>alert(1)</script>") > 20
    assert "49" not in hostile["text"]
    assert "<!--" not in whole
    assert "alert(1)</script>" not in whole


def test_nothing_is_loaded_from_anywhere(read, whole):
    (policy,) = read.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy["content"]
    assert "script-src 'sha256-" in policy["content"]
    for element in read.elements:
        assert not {"src", "srcset", "data", "poster", "background", "action"} & set(element)
        assert not [name for name in element if name.startswith("on")]
    style = read.all("style")[0]["text"]
    assert "url(" not in style
    assert "@import" not in style


def test_without_scripts_every_section_is_shown(read):
    assert not [each for each in read.elements if "hidden" in each or "display" in (each.get("style") or "")]


def test_the_thread_tells_changed_rules(read):
    told = [each["text"] for each in read.all("li") if "rules changed after the first trial" in each["text"]]
    assert len(told) == 2
    assert "How large can the learning rate be?" in told[0]
    assert verdicts.HOSTILE[:20] in told[1]


def test_numbers_of_two_layers_are_told_once():
    figure = figures.points("t", {"a": {0: 0.1, 1: 0.2}}, axis="y", percent=False)
    read = Reader(page([verdicts.verdict(figures=(figure,))]))
    assert [each["text"] for each in read.all("summary")] == [
        "The numbers of this chart: arm, seed, value (2)",
        "The numbers of this chart: arm, mean, low, high (1)",
    ]


def test_the_style_knows_the_dark_and_paper(read):
    style = read.all("style")[0]["text"]
    assert "prefers-color-scheme: dark" in style
    paper = style[style.index("@media print") :]
    assert "main > section { display: block !important }" in paper
    assert "break-before: page" in paper


def test_the_same_verdicts_give_the_same_page_but_for_timing():
    slower = verdicts.verdict(seconds=99999.0)
    pages = [page([verdict]) for verdict in (verdicts.verdict(), verdicts.verdict(), slower)]
    assert pages[0] == pages[1] != pages[2]
    untimed = [re.sub(r"<(\w+) data-timing>.*?</\1>", "", each) for each in pages]
    assert untimed[0] == untimed[2]


def test_the_page_needs_no_torch():
    code = "import sys, normlab.report.page, normlab.report.text; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")

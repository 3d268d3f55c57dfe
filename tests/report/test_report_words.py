"""Verdicts as a forum post and in the terminal."""

import re
import shlex

import pytest

import verdicts
from normlab.report import words
from normlab.report.findings import findings
from normlab.report.markdown import markdown
from normlab.report.text import lines
from normlab.report.thread import THREAD
from normlab.store.verdict import Finding, MeasureFacts


def table(page):
    """The rows of the one table in it, without its head."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("|")][2:]


def unescaped(text):
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def test_the_post_has_a_row_for_every_line_of_the_thread():
    post = markdown(verdicts.all_of_them())
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in post.splitlines() if line.startswith("|")]
    assert all(len(row) == 6 for row in rows)
    assert {row[0].strip() for row in rows[2:]} == {str(line.number) for line in THREAD} | {""}
    asked = [row[1].strip() for row in rows[2:] if row[0].strip()]
    assert len([question for question in asked if question]) == len(THREAD), "each once"
    first = unescaped("|".join(rows[2]))
    assert "✓ **supported**: Without the bias the accuracy is the same" in first
    assert " 4 | 0.03 % | -0.09 % to 0.12 % " in first.replace("|", " | ").replace("  ", " ")
    assert "not measured yet: `normlab study run curves`" in post


def test_verdicts_of_one_study_on_other_data_are_told_apart_by_their_setting():
    same = [verdicts.verdict(), verdicts.verdict(key="again")]
    other = verdicts.verdict(key="other", setting="lenet on digits")
    assert [words.apart(each, [*same, other]) for each in (*same, other)] == [same[0].setting] * 2 + [other.setting]
    assert [words.apart(each, same) for each in same] == ["", ""]
    assert "within 0.4 points. (lenet on digits) |" in markdown([*same, other])


def test_the_post_of_one_verdict_has_no_table():
    post = markdown([verdicts.verdict()])
    assert "|" not in post
    assert post.startswith("## Can the bias of the layer before batch normalization be removed?\n")
    assert "```sh\nnormlab study run bias --size quick\n```\n" in post
    assert "Unusable trials, counted apart: 1." in post


def test_the_post_tells_changed_rules():
    assert "**The rule was changed**" in markdown([verdicts.nothing()])
    assert "rule was changed" not in markdown([verdicts.verdict()])


def test_findings_show_what_was_contradicted_first_and_the_figure_of_the_source():
    supported = verdicts.verdict(original="as said: 14 times")
    contradicted = verdicts.verdict(key="other", study="aaa", word="contradicted")
    contradicted = contradicted.model_copy(
        update={"findings": tuple(each.model_copy(update={"word": "contradicted"}) for each in supported.findings)}
    )
    page = findings([supported, contradicted], {})
    summary, *sections = page.split("\n## ")
    rows = table(summary)
    assert [row[0].strip() for row in rows] == ["[aaa](#aaa)", "[bias](#bias)"]
    assert all(len(row) == 6 for row in rows)
    assert [row[2].strip() for row in rows] == ["–", "as said: 14 times"]
    assert "0.03 points (-0.09 to 0.12)" in unescaped(rows[1][3])
    assert "Its figure" not in sections[0]
    assert "- **Its figure**: as said: 14 times" in sections[1]
    assert findings([supported, contradicted], {}) == findings([contradicted, supported], {})


def test_findings_have_a_row_for_a_study_and_all_of_its_runs_in_its_section():
    quick = verdicts.verdict()
    standard = verdicts.verdict(key="b", size="standard", command="normlab study run bias --size standard")
    other = verdicts.verdict(key="c", size="standard", command="normlab study run bias --size standard --data digits")
    summary, section = findings([quick, other, standard], {quick.key: "2026-01-02T03:04:05Z"}).split("\n## ")
    assert len(table(summary)) == 1
    runs = table(section)
    assert [row[0].split("`")[1] for row in runs] == [each.command for each in (standard, other, quick)]
    assert [row[-1].strip() for row in runs] == ["–", "–", "2026-01-02"]


def test_findings_keep_the_words_of_others_words():
    ours = r'<a id="[\w-]*"></a>|\[(?:\\.|[^\]\\])*\]\(#[\w-]*\)'
    page = re.sub(r"(?<!\\)(`+).*?\1", "", re.sub(ours, "", findings([verdicts.hostile()], {})), flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<`\[\]{}]", page)
    assert "\x1b" not in page


def test_words_of_others_stay_words_in_the_post():
    outside = re.sub(r"(`{3,}).*?\1", "", markdown([verdicts.hostile()]), flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<`\[\]|{}]", outside)
    assert "\x1b" not in outside
    assert "alert" in outside


def test_the_post_is_the_same_twice_and_tells_no_time():
    assert markdown([verdicts.verdict()]) == markdown([verdicts.verdict(seconds=9e9)])


@pytest.mark.parametrize("verdict", verdicts.all_of_them(), ids=lambda each: each.study[:12])
def test_the_terminal_gets_at_most_100_columns(verdict):
    told = lines(verdict)
    command = told.index("run it again")
    assert max(map(len, told[:command])) <= 100
    assert not [line for line in told if re.search(r"[\x00-\x1f\x7f\u2028]", line)]
    assert told[0].startswith(f"{verdict.word}: ")


def test_the_terminal_gets_word_sentence_findings_arms_and_command():
    told = "\n".join(lines(verdicts.verdict()))
    assert (
        told
        == """\
supported: Can the bias of the layer before batch normalization be removed?
  Without the bias the accuracy is the same: the difference lies within 0.4 points.

findings
  supported: accuracy: with bias and without bias differ by less than 0.004
    effect 0.03 %; interval -0.09 % to 0.12 %; n = 4; p < 0.001; smallest detectable 0.21 %
  inconclusive (beside the verdict): accuracy under running statistics, likewise
    effect 0.03 %; interval -0.09 % to 0.12 %; n = 4; p < 0.001; smallest detectable 0.21 %

arms
  with bias     lr 1, 5 of 5 usable
  without bias  lr 0.316, 4 of 5 usable
      seed 4: not finite at epoch 1, step 12

what it does not show
  One architecture, one data set.

run it again
  normlab study run bias --size quick"""
    )


def test_a_long_command_can_be_pasted():
    command = "normlab study run bias --model 'my module:build it' " + " ".join(
        f"--option-{i} {i}" for i in range(20)
    )
    told = lines(verdicts.verdict(command=command))
    pasted = told[told.index("run it again") + 1 :]
    assert len(pasted) > 2
    assert max(map(len, pasted)) <= 100
    joined = "\n".join(pasted).replace("\\\n", "")
    assert shlex.split(joined) == shlex.split(command)


def test_a_verdict_that_no_finding_explains_is_told_all_the_same():
    odd = verdicts.verdict(word="answered", findings=(verdicts.nothing().findings[0],))
    assert words.decided(odd) is None
    assert "answered" in markdown([odd])
    assert lines(odd)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.1, 0.2, "0.1 to 0.2"), (0.1, None, "above 0.1"), (None, 0.2, "below 0.2"), (None, None, "–")],
)
def test_intervals(low, high, told):
    finding = Finding(rule="r", measure="m", word="answered", n=1, effect=None, low=low, high=high, p=None)
    assert words.interval(verdicts.verdict(findings=(finding,)), finding) == told


@pytest.mark.parametrize(("p", "told"), [(None, "–"), (0.0, "< 0.001"), (0.0314, "0.031"), (1.0, "1.000")])
def test_p(p, told):
    assert words.p_value(p) == told


@pytest.mark.parametrize(("seconds", "told"), [(0, "0 s"), (99, "99 s"), (412.7, "7 min"), (9000, "2.5 h")])
def test_durations(seconds, told):
    assert words.duration(seconds) == told


def test_tables_of_a_measure_are_long_rather_than_wide():
    few = MeasureFacts(title="t", percent=True, values={"a": {0: 0.5, 1: 0.25, 7: 1.0}, "b": {1: 0.125}})
    assert words.grid(few) == words.Grid(
        "Seed", ["a", "b"], [("0", ["50.00 %", "–"]), ("1", ["25.00 %", "12.50 %"]), ("7", ["100.00 %", "–"])]
    )
    many = MeasureFacts(title="t", percent=False, values={"a": {0: 0.5}, "b": {}})
    assert words.grid(many) == words.Grid("Arm", ["seed 0"], [("a", ["0.5"]), ("b", ["–"])])

"""What `normlab explain` tells of the rules is what their files say, read without importing them."""

import re
from pathlib import Path

import pytest

from normlab.cli import main
from normlab.explain.rules import rules
from normlab.explain.rules_page import rules_page
from normlab.rules import all_rules
from normlab.studies import names as study_names

ROOT = Path(__file__).parent.parent.parent
RULES = rules()
COLUMNS = 80


def told(capsys, *arguments, code=0):
    """What the command prints, in this process."""
    try:
        main(["explain", *map(str, arguments)])
    except SystemExit as ended:
        code -= ended.code or 0
    assert code == 0
    return "".join(capsys.readouterr())


def test_every_rule_is_read_as_it_is():
    assert list(RULES) == list(all_rules())
    for name, rule in all_rules().items():
        topic = RULES[name]
        for part in ("id", "severity", "title", "source", "remedy", "study"):
            assert getattr(topic, part) == getattr(rule, part), (name, part)
        assert " ".join(topic.why).split() == type(rule).__doc__.split()
        assert topic.mended_by == ("fix(data)" if rule.recalibrates else "fix()" if rule.mend else "")


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_its_parts(name):
    rule = RULES[name]
    assert re.fullmatch(r"NL[1-9]\d\d", name)
    assert rule.severity in {"error", "warning", "note"}
    assert not rule.title.endswith(".")
    assert all(rule.why)
    assert rule.source
    assert rule.remedy
    assert rule.study is None or rule.study in study_names()
    assert f"(NL{name[2]}xx)" in rule.folder


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_told_within_eighty_columns(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    text = told(capsys, name)
    assert max(map(len, text.splitlines())) <= COLUMNS
    squeezed, rule = " ".join(text.split()), RULES[name]
    for part in (name, rule.severity, rule.title, *rule.why, rule.remedy, rule.source, f"--select {name}"):
        assert part in squeezed
    assert (f"normlab study run {rule.study}" in squeezed) == (rule.study is not None)
    assert f"{rule.mended_by or 'fix()'} does it" in squeezed or not rule.mended_by
    assert ("does it" in squeezed.split(rule.remedy)[-1]) == bool(rule.mended_by)


def test_letters_may_be_small(capsys):
    assert told(capsys, "nl101") == told(capsys, "NL101") != ""


def test_the_rules_alone(capsys):
    assert re.findall(r"^  (\S+) ", told(capsys, "--rules"), re.MULTILINE) == list(RULES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NL1O1"], "expected a known rule, got 'NL1O1'; did you mean NL101?"),
        (["nl199"], "expected a known rule, got 'NL199'; did you mean NL"),
        (["NL101", "--rules"], "expected a topic, --rules or --output, got a topic and one of these"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    assert message in told(capsys, *arguments, code=2)


def test_the_page_of_the_rules_is_up_to_date():
    """If not: normlab explain --rules --output docs/rules.md."""
    assert (ROOT / "docs" / "rules.md").read_text() == rules_page()


def test_the_page_has_every_rule_once_in_its_table_and_a_section_of_its_own(capsys, tmp_path):
    told(capsys, "--rules", "--output", tmp_path / "rules.md")
    page = (tmp_path / "rules.md").read_text()
    for name, rule in RULES.items():
        assert page.count(f"[{name}](#{name.lower()})") == 1
        assert page.count(f'<a id="{name.lower()}"></a>\n\n## {name}: ') == 1
        assert page.index(rule.folder.split("(")[0].strip()) < page.index(f"| [{name}]")

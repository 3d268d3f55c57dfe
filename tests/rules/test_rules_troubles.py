"""docs/troubles.md names rules, surgeries, layers, topics and studies that there are."""

import re
from pathlib import Path

import pytest

from normlab import nn, surgery
from normlab.explain.topics import topics
from normlab.rules import all_rules
from normlab.studies import names

PAGE = (Path(__file__).parents[2] / "docs/troubles.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| trouble")]


@pytest.mark.parametrize("row", ROWS)
def test_what_answers_is_there(row: str) -> None:
    answer = row.split(" | ")[2]
    assert re.search(r"`|\]\(", answer), "something of ours"
    assert set(re.findall(r"`(NL\d+)`", answer)) <= set(all_rules())
    assert all(hasattr(surgery, name) for name in re.findall(r"`surgery\.(\w+)", answer))
    assert all(hasattr(nn, name) for name in re.findall(r"`nn\.(\w+)", answer))
    assert set(re.findall(r"`normlab explain ([\w-]+)`", answer)) <= set(topics())
    assert set(re.findall(r"`normlab study run ([\w-]+)`", answer)) <= set(names())

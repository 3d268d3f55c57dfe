"""docs/surgery.md names every surgery, and its example runs."""

import inspect
import re
from pathlib import Path

from normlab import surgery

PAGE = (Path(__file__).parents[2] / "docs/surgery.md").read_text()
NO_SURGERY = {"evaluating", "from_plain", "lanes_step", "to_plain"}


def test_every_surgery_is_listed_with_parameters_that_it_has() -> None:
    calls = dict(re.findall(r"`(\w+)\(([\w, ]*)\)(?:\(model\))?`", PAGE))
    functions = {name for name in surgery.__all__ if name.islower()} - NO_SURGERY
    assert set(calls) == functions
    for name, parameters in calls.items():
        taken = inspect.signature(getattr(surgery, name)).parameters
        assert set(re.findall(r"\w+", parameters)) <= set(taken), name


def test_the_example_runs() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(example, {})

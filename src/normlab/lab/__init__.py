"""The lab: claims put to the test. A study compares arms, its rules are written before the run, and its verdict says
how sure it is.
"""

from normlab.lab import draw, measures, plan, rules
from normlab.lab.measures import accuracy
from normlab.lab.sizes import RECIPE, sizes
from normlab.lab.study import Arm, Measure, Size, Study

__all__ = ["RECIPE", "Arm", "Measure", "Size", "Study", "accuracy", "draw", "measures", "plan", "rules", "sizes"]

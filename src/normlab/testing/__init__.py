"""The laws that a normalization must satisfy, and how to put any layer before them.

    check_norm(MyNorm, kind="batch")       raises with law, inputs, expected and got
    parametrize_with_laws(MyNorm)          the same as pytest cases
    normlab laws mypkg:MyNorm              the same as a table

A law (`law.py`) is a small check with its formula, its tolerance and the kinds of transform (`kinds.py`) it holds
for; `laws/` has them, one idea a file. In the formulas h is the input, g the gradient of the output, s =
sqrt(var + eps), xh = (h - mu) / s, N the number of elements that share statistics, u the machine epsilon and
k = 1 + |mu| / s, by which rounding of the input is magnified. A law that states an identity is asked of values and
of gradients, which may be off 8 times as much.
"""

from normlab.testing.cases import parametrize_with_laws
from normlab.testing.check import Finding, LawBroken, check_norm, examine
from normlab.testing.kinds import KINDS
from normlab.testing.law import Law, all_laws

__all__ = ["KINDS", "Finding", "Law", "LawBroken", "all_laws", "check_norm", "examine", "parametrize_with_laws"]

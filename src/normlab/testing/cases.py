"""The laws as pytest cases, for anyone's test suite."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from normlab.testing.check import PRECISIONS, LawBroken, judge, kind_of
from normlab.testing.law import Law, all_laws
from normlab.testing.subject import Factory, subject

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Case:
    """One law on one layer in one precision: call it in a test."""

    law: Law
    factory: Factory
    kind: str
    precision: str

    def __call__(self) -> None:
        """Raises LawBroken if the law does not hold, and skips the test where it does not apply."""
        import pytest

        finding = judge(self.law, subject(self.factory, self.kind, PRECISIONS[self.precision]))
        if finding.outcome == "fail":
            raise LawBroken(str(finding))
        if finding.outcome == "does not apply":
            pytest.skip(finding.why)


def parametrize_with_laws(factory: Factory, kind: str | None = None) -> "pytest.MarkDecorator":
    """One pytest case for each law of the kind and precision.

        @parametrize_with_laws(MyNorm)
        def test_my_norm(law):
            law()

    Arguments and errors are those of `check_norm`.
    """
    import pytest

    kind = kind_of(factory, kind)
    cases = [
        pytest.param(Case(law, factory, kind, precision), id=f"{law.name}-{precision}")
        for law in all_laws()
        if kind in law.kinds
        for precision in PRECISIONS
    ]
    return pytest.mark.parametrize("law", cases)

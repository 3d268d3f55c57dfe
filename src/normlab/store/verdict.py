"""Verdict: what a study found, as plain data, with all that a reader of it needs."""

from typing import Literal

from pydantic import Field, JsonValue

from normlab.store.record import Plain

Word = Literal["supported", "contradicted", "inconclusive", "answered"]
"""`answered` is for a proof, or a measurement without a claim."""

Scale = Literal["difference", "level", "ratio", "rank"]


class Finding(Plain):
    """What one rule found; None where too few trials let nothing be said."""

    rule: str
    """In words, as fixed before the run."""
    measure: str
    word: Word
    scale: Scale = "difference"
    """What the effect is: a difference or a level in the measure's units, a ratio, a rank correlation."""
    n: int
    effect: float | None
    low: float | None
    high: float | None
    """Bounds of the interval that decided."""
    p: float | None
    sign_flip: float | None = None
    """P of the exact sign-flip test, from n = 6."""
    detectable: float | None = None
    """The smallest effect that would have been found with 90 % power, given the spread of these pairs."""
    beside: bool = False
    """Shown beside the verdict, which it does not decide."""


class ArmFacts(Plain):
    """One side of the comparison, in words and numbers."""

    what: str
    trials: dict[int, tuple[str, ...]]
    """Seed to the ids of its trials."""
    lr: float | None = None
    """The learning rate, where the arm has one: its own best where rates were tuned."""
    unusable: dict[int, str] = Field({})
    """Seed to why its trial counts apart: not finite, at chance, or failed."""


class MeasureFacts(Plain):
    """A measured quantity, and every value of it: arm to seed to number."""

    title: str
    """What it is, with its unit."""
    percent: bool
    """Whether it is a share in [0, 1], to be shown in percent."""
    values: dict[str, dict[int, float]]


class Figure(Plain):
    """A chart as Vega-Lite, complete with its data."""

    title: str
    description: str
    """What it shows, for who does not see it."""
    spec: dict[str, JsonValue]


class Verdict(Plain):
    """A study that was run: question, answer, evidence. The first finding that is as weak as the word decided."""

    key: str
    """Of the question at this size: the study, its size and its base recipe."""
    study: str
    question: str
    claim: str
    source: str
    original: str = ""
    """The figure that the source gives, where it was read there."""
    thread: tuple[int, ...] = ()
    """Which lines of the thread it answers."""
    size: str
    command: str
    """Runs it again."""
    word: Word
    sentence: str
    """The answer in one sentence."""
    findings: tuple[Finding, ...] = Field(min_length=1)
    rules_before: tuple[str, ...] | None = None
    """The rules that were fixed before the first trial, where they are not these any more."""
    arms: dict[str, ArmFacts]
    measures: dict[str, MeasureFacts]
    figures: tuple[Figure, ...]
    caveats: tuple[str, ...] = ()
    """What it does not show."""
    setting: str
    """Model, data, optimizer, examples, in words."""
    machine: dict[str, str | int]
    versions: dict[str, str]
    seconds: float = 0.0
    """Wall clock of all its trials, added up; the only number here that another run may find otherwise."""

    @property
    def deciding(self) -> Finding:
        """The finding that decided."""
        return next(finding for finding in self.findings if finding.word == self.word and not finding.beside)

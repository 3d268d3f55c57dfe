"""From records to a verdict: cells, outcomes, findings, the weakest rule."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from normlab.lab.cell import Cell, Found, Trial, unusable
from normlab.lab.plan import Arms, floor_of
from normlab.lab.study import Results, Study
from normlab.store import Finding, Record
from normlab.store.verdict import Word

WEAKNESS: tuple[Word, ...] = ("contradicted", "inconclusive", "supported", "answered")
"""From the weakest on."""

Clock = Mapping[str, Sequence[float]]
"""Arm to the seconds of an optimizer step, several times measured; empty where a study is not timed."""


def cells_of(
    study: Study,
    arms: Arms,
    seeds: Sequence[int],
    found: Found,
    clock: Clock = MappingProxyType({}),
) -> list[Cell]:
    """Every arm with every seed, and what its trials gave."""
    floor = floor_of(study.plan, arms, seeds, found)
    trials: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    for trial in study.plan(arms, seeds, found):
        trials[trial.arm, trial.recipe.seed].append(trial)
    cells = [_cell(arm, seed, trials[arm, seed], found, floor) for arm in arms for seed in seeds if trials[arm, seed]]
    beside: dict[int, dict[str, Record]] = defaultdict(dict)
    for cell in cells:
        if cell.record is not None:
            beside[cell.seed][cell.arm] = cell.record
    return [
        dataclasses.replace(
            cell,
            beside=beside[cell.seed],
            step_seconds=clock[cell.arm][cell.seed % len(clock[cell.arm])] if cell.arm in clock else None,
        )
        for cell in cells
    ]


def _cell(arm: str, seed: int, trials: Sequence[Trial], found: Found, floor: float) -> Cell:
    records = tuple(record for trial in trials if isinstance(record := found[trial.key], Record))
    deciding = [found[trial.key] for trial in trials if trial.decides]
    if len(deciding) != 1:  # a search is judged by all of its trials
        return Cell(arm, seed, records, None, floor)
    why = unusable(deciding[0], floor)
    judged = deciding[0] if isinstance(deciding[0], Record) and why is None else None
    return Cell(arm, seed, records, judged, floor, why)


def results_of(study: Study, cells: Sequence[Cell]) -> Results:
    """Outcomes and findings."""
    arms = [*dict.fromkeys(cell.arm for cell in cells)]
    outcomes: dict[str, dict[str, dict[int, float]]] = {}
    for measure in study.measures:
        values: dict[str, dict[int, float]] = {arm: {} for arm in arms}
        for cell in cells:
            value = measure.of(cell)
            if value is not None and math.isfinite(value):
                values[cell.arm][cell.seed] = value
        outcomes[measure.name] = values
    findings = [finding for rule in study.rules for finding in rule(outcomes)]
    for rule in study.beside:
        findings += [finding.model_copy(update={"beside": True}) for finding in rule(outcomes)]
    apart = {arm: sum(cell.why_unusable is not None for cell in cells if cell.arm == arm) for arm in arms}
    return Results(cells, {measure.name: measure for measure in study.measures}, outcomes, findings, apart)


def word_of(findings: Sequence[Finding]) -> Word:
    """The weakest word of the rules; `answered` counts where nothing was claimed."""
    words = [finding.word for finding in findings if not finding.beside]
    return min(words, key=WEAKNESS.index)

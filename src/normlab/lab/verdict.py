"""A study's verdict, with all that a reader needs: made from records, never from anything that runs."""

from collections.abc import Callable, Mapping, Sequence

from normlab.lab import look
from normlab.lab.ask import Ask
from normlab.lab.cell import Cell, Found, Trial
from normlab.lab.judge import Clock, cells_of, results_of, word_of
from normlab.lab.study import Measure, Results
from normlab.store import Finding, Record, Verdict
from normlab.store.verdict import ArmFacts, MeasureFacts, Scale


def verdict_of(
    asked: Ask,
    found: Found,
    ids: Callable[[Trial], str],
    rules_before: Sequence[str],
    clock: Clock,
    machine: Mapping[str, str | int],
    versions: Mapping[str, str],
) -> Verdict:
    """The weakest rule's word, its sentence, every number behind it, and the figures."""
    study = asked.study
    cells = cells_of(study, asked.arms, asked.all_seeds, found, clock)
    results = results_of(study, cells)
    word = word_of(results.findings)
    deciding = next(finding for finding in results.findings if finding.word == word and not finding.beside)
    trials = study.plan(asked.arms, asked.all_seeds, found)
    records = [record for trial in trials if isinstance(record := found[trial.key], Record)]
    with look.unchecked():
        figures = tuple(draw(results) for draw in study.figures if _any(results))
    return Verdict(
        key=asked.key,
        study=asked.name,
        question=study.question,
        claim=study.claim,
        source=study.source,
        original=study.original,
        thread=study.thread,
        size=asked.size,
        command=asked.command,
        word=word,
        sentence=_answer(asked, results, deciding),
        findings=tuple(results.findings),
        rules_before=tuple(rules_before) if tuple(rules_before) != asked.rules else None,
        arms={name: _arm(name, str(arm), cells, trials, ids) for name, arm in study.arms.items()},
        measures={
            name: MeasureFacts(
                title=results.measures[name].title, percent=results.measures[name].percent, values=values
            )
            for name, values in results.outcomes.items()
        },
        figures=figures,
        caveats=tuple(study.caveats),
        setting=setting(asked),
        machine=dict(machine),
        versions=dict(versions),
        seconds=sum(record.timing.seconds for record in records),
    )


def _answer(asked: Ask, results: Results, deciding: Finding) -> str:
    answers = asked.study.answers
    if callable(answers):
        return answers(results, deciding)
    if deciding.word not in answers:
        return asked.study.claim
    return sentence(answers[deciding.word], deciding, results.measures[deciding.measure])


def _any(results: Results) -> bool:
    return any(values for arms in results.outcomes.values() for values in arms.values())


def _arm(
    name: str, what: str, cells: Sequence[Cell], trials: Sequence[Trial], ids: Callable[[Trial], str]
) -> ArmFacts:
    by_seed: dict[int, list[str]] = {}
    for trial in trials:
        if trial.arm == name:
            by_seed.setdefault(trial.recipe.seed, []).append(ids(trial))
    rates = {trial.recipe.lr for trial in trials if trial.arm == name and trial.decides}
    return ArmFacts(
        what=what,
        trials={seed: tuple(dict.fromkeys(made)) for seed, made in by_seed.items()},
        lr=rates.pop() if len(rates) == 1 else None,
        unusable={
            cell.seed: cell.why_unusable for cell in cells if cell.arm == name and cell.why_unusable is not None
        },
    )


def sentence(template: str, finding: Finding, measure: Measure) -> str:
    """The answer, with the numbers of the finding that decided; the unit stands at the effect alone."""
    if finding.effect is None and "{effect}" in template:
        return "No answer: no seed has a usable trial in every arm that is compared."
    if finding.low is None or finding.high is None:  # of one seed
        template = template.replace("{low} to {high}", "no interval")
    low, high = (
        "" if value is None else told(value, measure, finding.scale, unit=False)
        for value in (finding.low, finding.high)
    )
    effect = "" if finding.effect is None else told(finding.effect, measure, finding.scale)
    return template.format(effect=effect, low=low, high=high, n=finding.n, rule=finding.rule)


def told(value: float, measure: Measure, scale: Scale = "difference", *, unit: bool = True) -> str:
    """A number of a measure in a sentence: differences of shares are points, shares percent."""
    if not measure.percent or scale not in ("difference", "level"):
        return f"{value:.3g}"
    hundredths = f"{round(100 * value, 2) + 0.0:.2f}"  # no minus before a zero that rounding made
    return hundredths + (" points" if scale == "difference" else " %") * unit


def setting(asked: Ask) -> str:
    """Model, data and training in words."""
    base = asked.base
    examples = f"{base.train_examples:,} training examples" if base.train_examples else "all training examples"
    passes = "1 epoch" if base.epochs == 1 else f"{base.epochs} epochs"
    norm = f", {asked.in_place} for batch norm" if asked.in_place else ""
    return (
        f"{asked.subject}{norm} on {base.data}, {examples}, {passes}, batch {base.batch_size}, "
        f"{base.optimizer}, seeds 0 to {asked.seeds - 1}"
    )

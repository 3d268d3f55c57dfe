"""Verdicts that no study gave: plausible ones, hostile ones, and large ones."""

from typing import Any

from normlab.lab import figure
from normlab.store import Finding, Verdict
from normlab.store.verdict import ArmFacts, MeasureFacts

HOSTILE = "<script>alert(1)</script></script><!--<b>\"'&amp;{{7*7}}{% x %}|`*_[a](javascript:b)\x1b[31m\u2028ü"


def verdict(study: str = "bias", word: str = "supported", **changes: Any) -> Verdict:
    """Two arms, five seeds; the rules held for the first."""
    accuracy = {
        "with bias": {0: 0.871, 1: 0.866, 2: 0.875, 3: 0.869, 4: 0.872},
        "without bias": {0: 0.8712, 1: 0.8655, 2: 0.8751, 3: 0.8694},
    }
    finding = Finding(
        rule="accuracy: with bias and without bias differ by less than 0.004",
        measure="accuracy",
        word=word,
        n=4,
        effect=0.0003,
        low=-0.0009,
        high=0.0012,
        p=0.0004,
        sign_flip=None,
        detectable=0.0021,
    )
    beside = finding.model_copy(
        update={"rule": "accuracy under running statistics, likewise", "word": "inconclusive", "beside": True}
    )
    curves = {
        arm: {seed: [(epoch, end - 0.3 * 0.7**epoch) for epoch in range(1, 11)] for seed, end in seeds.items()}
        for arm, seeds in accuracy.items()
    }
    told: dict[str, Any] = {
        "key": f"{study}/quick/{word}",
        "study": study,
        "question": "Can the bias of the layer before batch normalization be removed?",
        "claim": "Removing it changes nothing: the batch mean absorbs any constant.",
        "source": "Ioffe & Szegedy 2015, section 3.2",
        "thread": (1,),
        "size": "quick",
        "command": f"normlab study run {study} --size quick",
        "word": word,
        "sentence": "Without the bias the accuracy is the same: the difference lies within 0.4 points.",
        "findings": (finding, beside),
        "arms": {
            "with bias": ArmFacts(what="the recipe as it is", trials={s: (f"{s:016x}",) for s in range(5)}, lr=1.0),
            "without bias": ArmFacts(
                what="remove_bias()",
                trials={s: (f"{s + 8:016x}",) for s in range(5)},
                lr=0.316,
                unusable={4: "not finite at epoch 1, step 12"},
            ),
        },
        "measures": {"accuracy": MeasureFacts(title="test accuracy, precise", percent=True, values=accuracy)},
        "figures": (
            figure.points("Test accuracy", accuracy, axis="accuracy", percent=True, unusable={"without bias": 1}),
            figure.curves("Training", curves, x="epoch", axis="training accuracy", percent=True),
            figure.effects("Effects", [finding, beside], margin=0.004, percent=True),
        ),
        "caveats": ("One architecture, one data set.",),
        "setting": "lenet on fashion-mnist, sgd, batch 256, 2 epochs of 20,000 examples",
        "machine": {"cpu": "a CPU", "cores": 2},
        "versions": {"torch": "2.13.0", "normlab": "0.1"},
        "seconds": 412.7,
    }
    return Verdict(**{**told, **changes})


def nothing(**changes: Any) -> Verdict:
    """Every trial failed: no number anywhere."""
    empty = Finding(
        rule="largest rate: BN is at least 3 times none",
        measure="largest rate",
        word="inconclusive",
        n=0,
        effect=None,
        low=None,
        high=None,
        p=None,
    )
    failed = ArmFacts(
        what="swap('batch', 'none')", trials={0: (), 1: ()}, unusable={0: "at chance", 1: "failed: OOM"}
    )
    return verdict(
        "largest-rate",
        "inconclusive",
        thread=(4,),
        question="How large can the learning rate be?",
        sentence="Nothing can be said: no trial was usable.",
        findings=(empty,),
        rules_before=("largest rate: BN is at least 10 times none",),
        arms={"BN": failed, "none": failed},
        measures={
            "largest rate": MeasureFacts(title="largest usable rate", percent=False, values={"BN": {}, "none": {}})
        },
        figures=(
            figure.points("Largest rate", {"BN": {}}, axis="rate", percent=False, unusable={"BN": 2}),
            figure.effects("Effects", [empty], margin=None, percent=False),
        ),
        caveats=(),
    ).model_copy(update=changes)


def many(count: int = 53) -> Verdict:
    """As many arms as transforms, with long names; every kind of figure."""
    names = [f"transform number {i}: a long name of what it does to the activations" for i in range(count)]
    values = {name: {seed: 0.5 + i / 120 + seed / 200 for seed in range(3)} for i, name in enumerate(names)}
    few = names[:7]
    words = ("supported", "contradicted", "inconclusive", "answered")
    findings = tuple(
        Finding(
            rule=f"accuracy: {name} minus BN is above 0",
            measure="accuracy",
            word=words[i % 3],
            n=3,
            effect=0.01 - i / 500,
            low=-0.004 - i / 500,
            high=0.02 - i / 500,
            p=0.2,
        )
        for i, name in enumerate(few)
    )
    rates = {name: {r: {s: 0.4 + r / 10 + s / 50 for s in range(3)} for r in (0.1, 0.316, 1.0, 3.16)} for name in few}
    line = [(step, step / 100, 0.5 + step / 50, 1 + step / 30) for step in range(0, 100, 5)]
    return verdict(
        "transforms",
        "contradicted",
        thread=(9, 12),
        question="Which other transforms could normalize, and does any of them train as fast as batch normalization?",
        sentence="No transform exceeds batch normalization; the best of them is 0.3 points short of it.",
        findings=tuple(each.model_copy(update={"word": "contradicted"}) for each in findings[:1]) + findings[1:],
        arms={
            name: ArmFacts(what=f"swap('batch', 't{i}')", trials={0: ("a",), 1: ("b",), 2: ("c",)}, lr=10**-i)
            for i, name in enumerate(names)
        },
        measures={
            "accuracy": MeasureFacts(title="test accuracy, precise", percent=True, values=values),
            "steps": MeasureFacts(title="steps to 80 %", percent=False, values=values),
        },
        figures=(
            figure.points("Accuracy of every transform", values, axis="accuracy", percent=True),
            figure.sweep("Accuracy against rate", rates, x="learning rate", axis="accuracy", percent=True),
            figure.percentiles("Inputs of the last sigmoid", dict.fromkeys(few[:3], line), x="step", axis="input"),
            figure.effects("Against BN", findings, margin=0.004, percent=True),
            figure.paths("gamma", {name: [(p[0], p[2]) for p in line] for name in few[:2]}, x="step", axis="gamma"),
            figure.scatter(
                "Rate and curvature",
                {n: (10 ** (i / 5), 9 ** (i / 4)) for i, n in enumerate(few)},
                x="2/λ at the start",
                axis="largest usable learning rate",
            ),
        ),
    )


def hostile() -> Verdict:
    """Its author wrote markup, templates and control characters wherever there is room for words."""
    x = HOSTILE
    base = verdict("noisy-bn", "answered")
    finding = base.findings[0].model_copy(update={"rule": x, "measure": x})
    values = {x: {0: 1.5, 1: 2.5}, f"{x}2": {0: 3.5}}
    drawn = figure.points(x, values, axis=x, percent=False, unusable={x: 3})
    return base.model_copy(
        update={
            "key": x,
            "study": x,
            "question": x,
            "claim": x,
            "source": x,
            "size": x,
            "command": f"normlab '{x}'",
            "sentence": x,
            "findings": (finding,),
            "rules_before": (x,),
            "thread": (),
            "caveats": (x, x),
            "arms": {x: ArmFacts(what=x, trials={0: (x,)}, unusable={0: x})},
            "measures": {x: MeasureFacts(title=x, percent=False, values=values)},
            "figures": (drawn, drawn.model_copy(update={"description": x})),
            "setting": x,
            "machine": {x: x},
            "versions": {x: x},
        }
    )


def all_of_them() -> list[Verdict]:
    answered = verdict(
        "affine-paths",
        "answered",
        thread=(11,),
        question="How are gamma and beta updated?",
        sentence="As any weight is: the optimizer's equation gives them bit for bit.",
    )
    return [verdict(), verdict(key="again"), nothing(), many(), answered, hostile()]

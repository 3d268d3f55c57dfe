"""Thread, line 14: "so quick": what does batch normalization cost per step, and what does it save?"""

import dataclasses

from normlab.lab.measures import accuracy, best_rate, seconds_to, step_seconds, steps_to
from normlab.lab.rules import answered, ratio_at_least
from normlab.studies.curves import STUDY as CURVES

STUDY = dataclasses.replace(
    CURVES,
    question="What does batch normalization cost per step, and what does it save in time to an accuracy?",
    claim="A step costs more, but an accuracy of 70 % is reached in less time.",
    source="D2L discussion, batch normalization: 'so quick, it only spent < 5 mins'",
    thread=(14,),
    measures=(accuracy, step_seconds, steps_to(0.7), seconds_to(0.7), best_rate),
    rules=(ratio_at_least("seconds", "none", "BN", 1),),
    beside=(ratio_at_least("step", "BN", "none", 1), answered("step", ("BN",)), answered("step", ("none",))),
    answers={
        "supported": "It saves time: without it, 70 % take {effect} times as many seconds ({low} to {high}, n = {n}).",
        "contradicted": "It saves no time: without it, 70 % take {effect} times as many seconds ({low} to {high}, "
        "n = {n}).",
        "inconclusive": "Not decided: without it, 70 % take {effect} times as many seconds ({low} to {high}, n = {n}).",
    },
    timed=True,
    caveats=(
        "A step is timed apart, one thread, the arms in turns; a run that never gets there counts as its whole length, "
        "a lower bound.",
        "Each arm at its own best rate for accuracy, which need not be the fastest to 70 %.",
    ),
)

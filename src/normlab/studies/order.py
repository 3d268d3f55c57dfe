"""Thread, line 6: in which order do norm, activation and dropout stand?"""

import math

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import at_start
from normlab.lab.rules import equivalent, near
from normlab.measure import to_plain, variance_ratio
from normlab.surgery import reorder

KEPT = 0.5
# Of max(0, z) for z ~ N(0, 1): mean square 1/2, squared mean 1/(2 pi); dropout divides what it keeps by KEPT.
THEORY = (0.5 - 1 / (2 * math.pi)) / (0.5 / KEPT - 1 / (2 * math.pi))

shift = at_start("variance ratio", "variance at the last norm, evaluation over training, at the start", "variance_ratio",
                "norm4")  # fmt: skip

STUDY = Study(
    question="In which order do batch norm, activation and dropout stand?",
    claim="Norm before or after the activation is the same within a point; dropout before a norm shifts its variance "
    "between training and evaluation as theory says.",
    source="Li, Chen, Hu & Yang 2018, arXiv 1801.05134, section 3; D2L discussion, batch normalization",
    thread=(6,),
    recipe=RECIPE.replace(
        lr=0.3,
        model_options={"activation": "relu", "dropout": 1 - KEPT},
        probes=(to_plain(variance_ratio(every=0, draws=2)),),
        evaluate_epochs=False,
    ),
    arms={
        "norm, activation, dropout": Arm(),
        "activation, norm, dropout": Arm(reorder("norm", "activation")),
        "norm, dropout, activation": Arm(reorder("activation", "dropout")),
    },
    measures=(accuracy, shift),
    rules=(
        near("variance ratio", "norm, activation, dropout", THEORY, 0.03),
        equivalent("accuracy", "norm, activation, dropout", "activation, norm, dropout", 0.01),
    ),
    beside=(equivalent("accuracy", "norm, activation, dropout", "norm, dropout, activation", 0.01),),
    answers={
        "supported": "Norm before or after the activation is the same within a point, and dropout shifts the variance as "
        "theory says ({rule}: {effect}, {low} to {high}, n = {n}).",
        "contradicted": "Not as claimed: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(quick={"train_examples": 40_000}),
    figures=(draw.points("accuracy"), draw.points("variance ratio"), draw.effects("accuracy", 0.01)),
    caveats=(
        "Dropout before or after a ReLU is the same function, exactly: the ReLU commutes with factors that are not "
        "negative. What the arms differ by is their draws.",
        "The claim is about trained networks. After 313 steps, half of what is run here, the norm behind the activation "
        "was 1.5 points ahead (1.2 to 1.8, n = 5); after 625 it was not (-0.05 points, -0.85 to 0.75, n = 8).",
    ),
)

"""Thread, line 9: which other transforms could normalize?"""

import torch
from torch import Tensor, nn

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import best_rate, running_accuracy, step_seconds
from normlab.lab.plan import tuned
from normlab.lab.rules import holm, superior
from normlab.nn import make_norm, norm_names
from normlab.norms.channels import affine
from normlab.surgery import swap


class BatchAndNoise(nn.Module):
    """Batch norm with the noise of normality-noise, but not its power transform: the control for it."""

    def __init__(self, num_features: int, dim: int) -> None:
        super().__init__()
        self.standardize = make_norm("batch", num_features, dim, affine=False)
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        h = self.standardize(x)
        if self.training:
            spread = h.detach().abs().mean([0, *range(2, h.dim())], keepdim=True)
            h = h + 0.4 * spread * torch.randn_like(h)
        return affine(h, self.weight, self.bias)


def centered(num_features: int, dim: int, transform: str) -> nn.Sequential:
    """A transform to (0, 1), begun with the gamma and beta that give its output mean 0 and variance 1."""
    layer = make_norm(transform, num_features, dim)
    nn.init.constant_(layer.get_parameter("weight"), 12**0.5)
    nn.init.constant_(layer.get_parameter("bias"), -(3**0.5))
    return nn.Sequential(layer)


HERE = "normlab.studies.transforms"
BATCH = "batch"
ARMS = {
    BATCH: Arm(),
    "batch and noise": Arm(swap("batch", f"{HERE}:BatchAndNoise")),
    **{name: Arm(swap("batch", f"{HERE}:centered", {"transform": name})) for name in ("pit", "rank-pit")},
    **{name: Arm(swap("batch", name, {"group_size": 16})) for name in ("newton-schulz", "zca", "pca", "cholesky")},
}
# Batch norm but for who shares a batch or which statistics serve; and what needs positions, which linear layers lack.
LEFT_OUT = {"sync", "domain", "frozen", "instance"}
QUICK = (BATCH, "mean-only", "variance-only", "newton-schulz", "pit")


def study(*own: str) -> Study:
    """Of the family, and of norms of the user's."""
    names = [name for name in (*norm_names(), *own) if name not in {*ARMS, *LEFT_OUT}]
    arms = ARMS | {name: Arm(swap("batch", name)) for name in names}
    return Study(
        question="Does another transform normalize better than batch normalization?",
        claim="None is more than a point of accuracy ahead of it, each at its own best rate.",
        source="D2L discussion, batch normalization; Ness & Udell, PMLR 163; Eftekhari & Papyan 2025, arXiv 2505.00685",
        thread=(9,),
        recipe=RECIPE.replace(model_options={"activation": "relu"}),
        arms=arms,
        measures=(running_accuracy, accuracy, step_seconds, best_rate),
        rules=(holm(tuple(superior("running accuracy", BATCH, name, -0.01) for name in arms if name != BATCH)),),
        beside=(superior("running accuracy", "normality-noise", "batch and noise"),),
        answers={
            "supported": "No: none is a point ahead of batch norm ({rule}: {effect}, {low} to {high}, n = {n}).",
            "contradicted": "Yes, one at least: {rule} does not hold; found {effect} ({low} to {high}, n = {n}).",
            "inconclusive": "Not decided for each of them: {rule}; found {effect} ({low} to {high}, n = {n}).",
        },
        plan=tuned((0.1, 0.316, 1.0), tuning_seeds=1),
        sizes=sizes({"train_examples": 10_000}, quick_arms=(*QUICK, *own)),
        figures=(draw.points("running accuracy"), draw.effects("running accuracy", 0.01), draw.points("step")),
        timed=True,
        caveats=(
            "Quick asks about the transforms that the thread names, after 10,000 images; standard about the whole family.",
            "Accuracy is that under running statistics, which each keeps: only batch norm's kind can be recomputed.",
            "Rates are chosen on validation data by one seed. A step is timed apart, one thread; batch norm has native "
            "kernels, which most of the others have not.",
            "Whitening in groups of 16 channels at most; `none` is no normalization. Instance norm is left out, since linear "
            "layers have no positions. The integral transforms begin with gamma and beta that undo their mean and scale.",
        ),
        with_norm=study,
    )


STUDY = study()

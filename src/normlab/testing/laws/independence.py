"""Whether one example's output depends on the others."""

import torch
from torch import Tensor, nn

from normlab.testing.compare import differ, same, same_map
from normlab.testing.kinds import ALL, BY_ITSELF, RANDOM, STATISTICS_OF_THE_BATCH
from normlab.testing.law import law
from normlab.testing.subject import Subject, run


@law("evaluation: dy_i / dh_j = 0 for i != j", "exact", ALL)
def evaluation_ignores_the_batch(subject: Subject) -> None:
    """In evaluation no example's output depends on the other examples."""
    _alone(subject, subject.trained())


@law("training: dy_i / dh_j = 0 for i != j", "exact", BY_ITSELF)
def training_ignores_the_batch(subject: Subject) -> None:
    """What normalizes each example by itself does so in training too."""
    _alone(subject, subject.make(drawn=True))


@law("training: dy_i / dh_j != 0", "a hundredth", STATISTICS_OF_THE_BATCH - {"rank"})
def training_sees_the_batch(subject: Subject) -> None:
    """What normalizes by the batch's statistics depends on all of it, and its gradient goes to all of it."""
    layer, x = subject.make(drawn=True), subject.draw()
    first, others = x[:1], x[1:]

    def output(others: Tensor) -> Tensor:
        return run(layer, torch.cat([first, others]))[:1]

    differ(
        "y of the first example when the others change", output, lambda o: output(3 * o.detach() + 1), 0.01, others
    )


def _alone(subject: Subject, layer: nn.Module) -> None:
    x, other = subject.draw(seed=3), subject.draw(seed=4)
    first = x[:1]

    def output(others: Tensor) -> Tensor:
        return run(layer, torch.cat([first, others]))[:1]

    fixed = output(x[1:]).detach()
    same_map("y of the first example when the others change", output, lambda others: fixed, 0.0, other[1:])
    together = run(layer, x)
    if subject.kind not in RANDOM:
        # Sums over fewer rows may round otherwise, and no more than that.
        alone = torch.cat([run(layer, x[i : i + 1]) for i in range(len(x))])
        same("y of each example alone", alone, together, 8 * subject.u * subject.condition(x, layer), x)

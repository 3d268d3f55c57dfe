"""Laws of what works on each element by itself, and of noise."""

import torch
from torch import Tensor

from normlab.testing.compare import Broken, describe, differ, same_map
from normlab.testing.kinds import RANDOM
from normlab.testing.law import law
from normlab.testing.subject import Subject, needs, run


@law("|y - beta| <= |gamma|, and = for |h| -> inf", "4 u", frozenset({"tanh"}))
def bounded_by_gamma(subject: Subject) -> None:
    """The output never leaves beta +- gamma; far from 0 it is there, and its gradient is 0."""
    layer, x = subject.make(drawn=True), subject.draw(mean=0.0)
    needs(layer, "weight")
    gamma, beta = layer.weight, getattr(layer, "bias", None)
    assert isinstance(gamma, Tensor)
    column = (1, -1, *[1] * (x.dim() - 2))
    shift = 0 if beta is None else beta.detach().reshape(column)
    room = (1 + 4 * subject.u) * gamma.detach().abs().reshape(column) + 4 * subject.u
    for scale in (1.0, 10.0, 1e6):
        off = (run(layer, scale * x).detach() - shift).abs()
        if not bool((off <= room).all()):
            raise Broken("|y - beta|", describe([scale * x]), "at most |gamma|", f"{(off / room).max():.6g} |gamma|")
    end = x.sign() * gamma.detach().reshape(column) + shift
    far = x.sign() * (1e6 + x.abs())
    same_map("y far from 0", lambda x: run(layer, x), lambda x: end, 4 * subject.u, far)


@law(
    "drop(relu(h)) = relu(drop(h)) under one mask; drop(sigmoid(h)) != sigmoid(drop(h))",
    "exact",
    frozenset({"dropout"}),
)
def dropout_commutes_with_relu(subject: Subject) -> None:
    """Dropout may stand before or after a ReLU, and it matters on which side of a sigmoid it stands."""
    layer, x = subject.make(), subject.draw(mean=0.0)
    same_map("dropout of relu", lambda x: run(layer, x.relu()), lambda x: run(layer, x).relu(), 0.0, x)
    differ(
        "dropout of sigmoid against sigmoid of dropout",
        lambda x: run(layer, x.sigmoid()),
        lambda x: run(layer, x).sigmoid(),
        0.01,
        x,
    )


@law(
    "y(h; seed) twice is the same; y(h; other seed) is not; evaluation draws nothing",
    "exact",
    RANDOM,
)
def noise_comes_from_the_generator(subject: Subject) -> None:
    """Random layers draw from torch's generator: a seed repeats them, another changes them, evaluation has none."""
    layer, x = subject.make(drawn=True), subject.draw()

    def seeded(x: Tensor, seed: int = 1) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return layer(x)

    same_map("y of one seed, twice", seeded, seeded, 0.0, x)
    if torch.equal(seeded(x), seeded(x, 2)):
        raise Broken("y of two seeds", describe([x]), "a difference", "none")
    layer.eval()
    same_map("y of two seeds in evaluation", seeded, lambda x: seeded(x, 2), 0.0, x)

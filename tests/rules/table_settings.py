"""Rules about the settings of the norms, and about what they hold."""

from typing import Any

import torch
from cases import Case
from torch import nn

from models import Keeps, batch, by_hand, changed, network
from normlab.surgery import freeze


def frozen() -> nn.Module:
    model = batch()().requires_grad_(False)
    freeze("statistics")(model)
    return model


def poison(norm: Any) -> None:
    norm.running_var[1] = float("nan")


def trained(norm: Any) -> Any:
    """With statistics that are not those of a new layer."""
    norm.running_mean.fill_(0.5)
    return norm


def learn_beta(norm: Any) -> None:
    norm.bias.copy_(torch.linspace(-1, 1, 4))


CASES = (
    Case("NL201", trips=batch(momentum=0.99), spares=batch(momentum=1.0), paths=("1",)),
    Case("NL202", trips=batch(momentum=0.0), spares=batch(momentum=0.001), paths=("1",)),
    Case("NL203", trips=batch(momentum=None), spares=lambda: batch(momentum=None)().eval(), paths=("1",)),
    Case("NL204", trips=batch(momentum=1.1), spares=batch(momentum=1.0), paths=("1",)),
    Case("NL205", trips=batch(eps=0.8), spares=batch(eps=1e-3), paths=("1",)),
    Case("NL206", trips=changed(lambda norm: trained(norm).requires_grad_(False)), spares=frozen, paths=("1",)),
    Case("NL207", trips=changed(lambda norm: trained(norm).eval()), spares=Keeps, paths=("1",)),
    Case(
        "NL208",
        trips=changed(lambda norm: norm.train(), lambda: batch()().eval()),
        spares=changed(lambda norm: norm.eval()),
        paths=("1",),
    ),
    Case(
        "NL209",
        trips=changed(lambda norm: setattr(norm, "track_running_stats", False)),
        spares=batch(track_running_stats=False),
        paths=("1",),
    ),
    Case(
        "NL210",
        trips=lambda: network(nn.InstanceNorm2d(4, track_running_stats=True)),
        spares=lambda: network(nn.InstanceNorm2d(4)),
        paths=("1",),
    ),
    Case("NL211", trips=changed(poison), spares=changed(lambda norm: norm.running_var.zero_()), paths=("1",)),
    Case(
        "NL212",
        trips=lambda: changed(learn_beta)().eval(),
        # A gamma at random is how DCGAN, among others, begins.
        spares=lambda: changed(lambda norm: norm.weight.normal_(1.0, 0.02))().eval(),
        paths=("1",),
    ),
    Case("NL213", trips=lambda: batch()().half(), spares=lambda: batch()().half().eval(), paths=("1",)),
    Case("NL214", trips=by_hand("parameter"), spares=by_hand("buffer"), paths=("1",)),
    Case("NL215", trips=by_hand("attribute"), spares=by_hand("buffer"), paths=("1",)),
)

"""Probes of a user's that misbehave in what they may, and in what they may not."""

import dataclasses

import torch

from normlab.errors import NormlabError


@dataclasses.dataclass(frozen=True)
class meddling:
    """Draws, trains, changes modes, buffers and gradients: all of which is taken back."""

    every: int

    def __call__(self, look):
        torch.rand(look.step + 7)
        look.model(look.x)
        look.loss(look.model(look.x), look.y).backward()
        with torch.no_grad():
            for value in (*look.model.parameters(), *look.model.buffers()):
                value.zero_()
        look.model.eval()
        return {"step": float(look.step), "seed": float(look.recipe.seed)}


@dataclasses.dataclass(frozen=True)
class failing:
    every: int
    at: int = 3
    own: bool = False

    def __call__(self, look):
        if look.step >= self.at:
            raise NormlabError("better luck", "this") if self.own else OSError("no luck\nat all")
        return {"inf": float("inf"), "one": 1.0}

"""Probes of a user's, and what is none."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class count:
    every: int
    scale: float = 1.0

    def __call__(self, look):
        return {"parameters": self.scale * sum(p.numel() for p in look.model.parameters())}


def without_every(**_):
    return lambda look: {}


def number(every):
    return every


def fails(every):
    raise OSError("no such thing")

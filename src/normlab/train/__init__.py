"""train(recipe) -> Record: the loop, its evaluation, its checkpoints."""

from normlab.train.observer import Interrupted, Observer
from normlab.train.run import train

__all__ = ["Interrupted", "Observer", "train"]

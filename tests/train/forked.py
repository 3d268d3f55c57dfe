"""Starts `python -m normlab` as often as it is told, each time as a process of its own, without the seconds that
Python and torch take to start: they are imported once, here, and each process is a fork of this one.

Reads a line of JSON for each, {"arguments": [...], "output": path}; writes its id, and once it has ended its status.
"""

import json
import os
import runpy
import sys

import torch

import normlab.cli.train
import normlab.cli.watch  # noqa: F401
from normlab.store import Recipe
from normlab.train import train

torch.set_num_threads(1)
train(Recipe(data="digits", train_examples=8, batch_size=8, epochs=1, optimizer="adamw"))  # imports the rest
for line in sys.stdin:
    asked = json.loads(line)
    process = os.fork()
    if process == 0:
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["normlab", *asked["arguments"]]
        runpy.run_module("normlab", run_name="__main__")
        sys.exit()
    print(process, flush=True)
    print(os.waitpid(process, 0)[1], flush=True)

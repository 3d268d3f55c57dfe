"""Payloads that misbehave, importable by worker processes."""

import os
import signal
import time
from pathlib import Path


def work(payload):
    action, _, rest = payload.partition(" ")
    if action == "raise":
        raise ValueError(rest)
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "die-once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "pid":
        time.sleep(0.2)
        return str(os.getpid())
    if action == "threads":
        import torch

        return str(torch.get_num_threads())
    return payload.upper()

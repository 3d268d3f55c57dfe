"""Torch's own random generators, borrowed: their states go back."""

import contextlib
from collections.abc import Iterator

import torch


def global_generators(device: torch.device) -> list[torch.Generator]:
    """Torch's own generators that a model on this device draws from: the CPU's, and the device's."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        generators.append(
            torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
        )
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    return generators


@contextlib.contextmanager
def borrowed(device: torch.device | None = None) -> Iterator[None]:
    """Give torch's global generators, CPU and device, back as they were."""
    states = [(each, each.get_state()) for each in global_generators(device or torch.device("cpu"))]
    try:
        yield
    finally:
        for each, state in states:
            each.set_state(state)

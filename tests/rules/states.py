"""All that a check must leave as it is."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def state_of(model: nn.Module) -> dict[str, Any]:
    """Every tensor by its bytes, every mode, attribute and hook by name, every generator."""
    held: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),
    }
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            held[f"{path}.{name}"] = _plain(value)
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None:
                held[f"{path}.{name} needs"] = value.requires_grad, _plain(value.grad if value.is_leaf else None)
    return held


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Tensor):
        flat = value.detach().contiguous().flatten()
        return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return repr(value)

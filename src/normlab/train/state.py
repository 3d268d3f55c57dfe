"""What a model remembers from one batch to the next: parameters, buffers, and tensors that are mere attributes, as
the moving averages of the book's own BatchNorm are.
"""

import torch
from torch import Tensor, nn


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Path to tensor; a shared parameter or buffer once, buffers that no state_dict holds included."""
    attributes = (
        (f"{path}.{name}" if path else name, value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    )
    return dict((*model.named_parameters(), *model.named_buffers(), *attributes))


def put_back(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Give the model these tensors: into its own where they fit, so that an optimizer's parameters stay the same."""
    own = tensors(model)
    with torch.no_grad():
        for path, value in kept.items():
            if path in own and own[path].shape == value.shape:
                own[path].copy_(value)
            else:
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, value.to(own[path].device) if path in own else value)

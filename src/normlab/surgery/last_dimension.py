"""A norm for (N, C) on the last dimension, where transformers have their channels."""

from torch import Tensor, nn


class LastDimension(nn.Module):
    """The norm of x (*, C) as of (rows, C): each position is an example of its own, as in `torch.nn.LayerNorm(C)`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes x (*, C)."""
        return self.norm(input.reshape(-1, input.shape[-1])).reshape(input.shape)

"""held: the tensors that a norm holds beside its parameters: its running statistics, wherever it keeps them."""

import dataclasses

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@dataclasses.dataclass(frozen=True)
class Held:
    """One of them, as it was."""

    value: Tensor
    """A copy without autograd history."""
    carries_graph: bool
    """Whether it had a history, and with it kept alive the step that computed it."""


def held_by(module: nn.Module) -> dict[str, Held]:
    """Name to buffer or plain attribute; what waits for its first batch is left out."""
    return {
        name: Held(value.detach().clone(), value.grad_fn is not None)
        for name, value in (*vars(module).items(), *module._buffers.items())
        if isinstance(value, Tensor) and not is_lazy(value)
    }

"""What layers without running statistics share: parameters for each channel, and the checks of their input."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from normlab.norms.shapes import Shaped, as_one_call, check_eps


class StatelessNorm(Shaped, nn.Module, ABC):
    """weight (C,) and bias (C,), if affine; the same in training and in evaluation."""

    has_bias: ClassVar[bool] = True
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.affine = affine
        for name, wanted in (("weight", affine), ("bias", affine and self.has_bias)):
            empty = torch.empty(num_features, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(empty) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1 and bias 0."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Of x (N, num_features, *spatial), the same in training and in evaluation."""
        if isinstance(input, fx.Proxy):
            return as_one_call(self, input)
        self._check_input_dim(input)
        return self._normalize(input)

    @abstractmethod
    def _normalize(self, input: Tensor) -> Tensor:
        """Gives y of x (N, num_features, *spatial), whose shape is checked."""

    def extra_repr(self) -> str:
        return f"{self.num_features}, affine={self.affine}"


class ExampleNorm(StatelessNorm):
    """A norm by statistics of each example, to which `eps` is added."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_eps(eps)
        super().__init__(num_features, affine, device=device, dtype=dtype)
        self.eps = eps

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"

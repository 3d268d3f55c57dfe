"""Rules of the folder `layers`."""

from functools import partial

import torch
from cases import Case
from torch import Tensor, nn


class WrittenNorm(nn.Module):
    """As models write their own: `inside` is what the statistics are computed in, `late` casts before the weight."""

    def __init__(self, width: int = 8, eps: float = 1e-6, inside: torch.dtype | None = None, late: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.inside, self.late = eps, inside, late

    def forward(self, x: Tensor) -> Tensor:
        h = x.to(self.inside or x.dtype)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype) if self.late else (self.weight * h).to(x.dtype)


class WrittenRMSNorm(WrittenNorm):
    """Found by its name."""


class OnePlusRMSNorm(WrittenNorm):
    """Its weight is stored less 1, as Gemma's."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], 1 + self.weight, self.eps)


class ChannelsFirst(nn.LayerNorm):
    """Derived from torch's, as libraries do, and right behind a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, -1)).transpose(1, -1)


def zeroed(norm: nn.Module) -> nn.Module:
    nn.init.zeros_(norm.weight)
    return norm


def halved(norm: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), norm).to(dtype)


def half_batch(dtype: torch.dtype = torch.float16, *shape: int):
    return lambda model: {"batch": torch.randn(*(shape or (5, 4))).to(dtype)}


def batch(*shape: int, scale: float = 1.0, shift: float = 0.0):
    return lambda model: {"batch": torch.randn(shape) * scale + shift}


def channels_last(model: nn.Module):
    return {"batch": (torch.randn(2, 4, 6, 6) + 500).contiguous(memory_format=torch.channels_last)}


class Block(nn.Module):
    def __init__(self, eps: float = 1e-5, width: int = 8):
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(width, eps=eps), nn.Linear(width, width)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def encoder(norm: nn.Module | None) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True, norm_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, norm=norm, enable_nested_tensor=False), nn.Linear(8, 3))


def stack(*eps: float) -> nn.Module:
    return nn.Sequential(*(Block(each) for each in eps))


def adamw(model: nn.Module):
    """Of what is trained."""
    trained = [each for each in model.parameters() if each.requires_grad]
    return {"optimizer": torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1)}


def mixed(late: bool) -> nn.Module:
    """A model in float16 but for the weight of its norm."""
    model = halved(WrittenRMSNorm(inside=torch.float32, late=late))
    model[1].float()
    return model


CASES = (
    Case(
        "NL501",
        trips=lambda: nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(1)),
        spares=lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)),
        paths=("1",),
    ),
    Case(
        "NL502",
        trips=lambda: nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(8, 8), nn.ReLU()),
        spares=lambda: nn.Sequential(nn.Linear(4, 12), nn.GroupNorm(4, 12), nn.ReLU()),
        paths=("1",),
        given=batch(5, 4),
        also=("NL506",),
    ),
    Case(
        "NL503",
        trips=lambda: nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.AdaptiveAvgPool2d(1)),
        spares=lambda: nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        paths=("0",),
    ),
    Case(
        "NL504",
        trips=lambda: nn.Sequential(nn.Conv1d(3, 8, 1), nn.LayerNorm(8)),
        spares=lambda: nn.Sequential(nn.Conv1d(3, 8, 1), ChannelsFirst(8)),
        paths=("1",),
    ),
    Case(
        "NL505",
        trips=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 6, 6))),
        spares=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(1, 4)),
        paths=("1",),
    ),
    Case(
        "NL506",
        trips=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)),
        spares=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        paths=("0",),
    ),
    Case(
        "NL507",
        trips=lambda: stack(1e-5, 1e-5, 1e-6, 1e-5),
        spares=lambda: stack(1e-5, 1e-5, 1e-6, 1e-6),
        paths=("2.norm1",),
    ),
    Case(
        "NL508",
        trips=lambda: encoder(None),
        spares=lambda: encoder(nn.LayerNorm(8)),
        paths=("0.layers",),
        given=batch(2, 5, 8),
    ),
    Case(
        "NL509",
        trips=lambda: nn.Sequential(nn.Identity(), nn.LayerNorm(8, eps=1e-3)),
        spares=lambda: nn.Sequential(nn.Identity(), nn.LayerNorm(8, eps=2e-4)),
        paths=("1",),
        given=batch(6, 8, scale=1e-2),
    ),
    Case(
        "NL510",
        trips=lambda: nn.Sequential(nn.Linear(4, 8), zeroed(WrittenRMSNorm()), nn.Linear(8, 3)),
        spares=lambda: nn.Sequential(nn.Linear(4, 8), zeroed(OnePlusRMSNorm()), nn.Linear(8, 3)),
        paths=("1",),
        given=batch(5, 4),
    ),
    Case(
        "NL511",
        trips=lambda: nn.Sequential(nn.GroupNorm(2, 4)),
        spares=lambda: nn.Sequential(nn.Flatten(2), nn.GroupNorm(2, 4)),
        paths=("0",),
        given=channels_last,
    ),
    Case(
        "NL512",
        trips=lambda: halved(WrittenRMSNorm(eps=1e-8)),
        spares=lambda: halved(nn.LayerNorm(8, eps=1e-12)),
        paths=("1",),
        given=half_batch(),
        also=("NL513", "NL514"),
    ),
    Case(
        "NL513",
        trips=lambda: halved(WrittenRMSNorm()),
        spares=lambda: halved(WrittenRMSNorm(inside=torch.float32)),
        paths=("1",),
        given=half_batch(),
        also=("NL514",),
    ),
    Case(
        "NL514",
        trips=lambda: halved(WrittenRMSNorm(), torch.bfloat16),
        spares=lambda: halved(WrittenRMSNorm(inside=torch.float32, late=True), torch.bfloat16),
        paths=("1",),
        given=half_batch(torch.bfloat16),
    ),
    Case(
        "NL515",
        trips=partial(mixed, late=True),
        spares=partial(mixed, late=False),
        paths=("1",),
        given=half_batch(),
    ),
    Case(
        "NL516",
        trips=lambda: halved(nn.RMSNorm(8), torch.bfloat16),
        spares=lambda: halved(zeroed(OnePlusRMSNorm(8)), torch.bfloat16),
        paths=("",),
        given=adamw,
        also=("NL517",),
    ),
    Case(
        "NL517",
        trips=lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8)),
        spares=lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8).requires_grad_(False)),
        paths=("",),
        given=adamw,
    ),
)

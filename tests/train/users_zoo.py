"""Models and data as users write them, named `users_zoo:...` in the tests. Small: a run takes milliseconds."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

FEATURES, CLASSES = 6, 3

# --- data ----------------------------------------------------------------------------------------------------------


def examples(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Classes that can be learned: the largest of three noisy features."""
    x = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))
    y = (x[:, :CLASSES] + x[:, CLASSES:] / 4).argmax(1)
    return x.to(dtype), y


def tensors() -> dict:
    return {"train": examples(130), "validation": examples(30, 1), "test": examples(40, 2)}


def float64() -> dict:
    return {name: (x.double(), y) for name, (x, y) in tensors().items()}


def half() -> dict:
    return {name: (x.half(), y) for name, (x, y) in tensors().items()}


def images() -> dict:
    """uint8, 16 x 16."""
    x = torch.randint(256, (70, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"train": (x, torch.arange(70) % 3), "test": (x[:20], torch.arange(20) % 3)}


def gray() -> dict:
    """Images without an axis of channels."""
    return {name: (x[:, 0], y) for name, (x, y) in images().items()}


def from_one() -> dict:
    return {name: (x, y + 1) for name, (x, y) in tensors().items()}


def one_left() -> dict:
    """Batches of 32 leave one example."""
    return {"train": examples(129)}


def _loader(data: Dataset, **options: object) -> dict:
    test = DataLoader(TensorDataset(*examples(40, 2)), 16, shuffle=True)
    return {"train": DataLoader(data, 32, **options), "test": test}


def shuffled() -> dict:
    """By torch's global generator."""
    return _loader(TensorDataset(*examples(130)), shuffle=True)


def shuffled_by_its_own() -> dict:
    return _loader(TensorDataset(*examples(130)), shuffle=True, generator=torch.Generator().manual_seed(9))


def drawn_with_replacement() -> dict:
    """A sampler that draws from the global generator, piece by piece."""
    data = TensorDataset(*examples(130))
    return _loader(data, sampler=RandomSampler(data, replacement=True, num_samples=100))


class Noisy(Dataset):
    """A random transform of each example."""

    def __init__(self) -> None:
        self.x, self.y = examples(130)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index] + 0.1 * torch.randn(FEATURES), self.y[index]


def augmented() -> dict:
    return _loader(Noisy(), shuffle=True, generator=torch.Generator().manual_seed(9))


class Stream(IterableDataset):
    """No length, and an order that the global generator decides."""

    def __iter__(self):
        x, y = examples(130)
        for index in torch.randperm(130):
            yield x[index], y[index]


def streamed() -> dict:
    return _loader(Stream())


# --- models --------------------------------------------------------------------------------------------------------


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def images_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, CLASSES))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 16), nn.Flatten(), nn.Linear(4, CLASSES))


def frozen_model() -> nn.Module:
    return without_norms().requires_grad_(False)


def without_norms() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))


class Dropouts(nn.Module):
    """A dropout used twice, a functional one, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 16)
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.norm(self.dropout(self.hidden(x))))
        h = functional.dropout(h, 0.2, self.training)
        return self.output(h + 0.1 * torch.randn_like(h) if self.training else h)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Dropout(0.2), nn.LazyLinear(CLASSES))


class BooksNorm(nn.Module):
    """*Dive into Deep Learning*'s from scratch: averages as mere attributes, modes by whether there is a gradient."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, num_features))
        self.beta = nn.Parameter(torch.zeros(1, num_features))
        self.moving_mean = torch.zeros(1, num_features)
        self.moving_var = torch.ones(1, num_features)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.gamma * (x - self.moving_mean) / torch.sqrt(self.moving_var + 1e-5) + self.beta
        mean = x.mean(dim=0)
        var = ((x - mean) ** 2).mean(dim=0)
        self.moving_mean = (0.9 * self.moving_mean + 0.1 * mean).data
        self.moving_var = (0.9 * self.moving_var + 0.1 * var).data
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-5) + self.beta


def book() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), BooksNorm(8), nn.Sigmoid(), nn.Linear(8, CLASSES))


class Remembering(nn.Module):
    """A buffer that grows, one that is put anew, one that is a view of a weight, and one not in the state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("seen", torch.zeros(0, FEATURES))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("row", self.linear.weight.data[0])
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = torch.cat([self.seen, x.detach().mean(0, keepdim=True)])
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.scale.mul_(0.999)
        return self.linear(x * self.scale - self.mean + (self.seen.mean(0) if len(self.seen) else 0))


class Frozen(nn.Module):
    """A pretrained part whose norm stays in evaluation mode, and a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8, momentum=0.5), nn.ReLU()).eval()
        self.backbone[1].running_mean += 0.25
        self.backbone.requires_grad_(False)
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append((self.backbone[1].training, self.head[0].training))
        return self.head(self.backbone(x))


class Drawing(nn.Module):
    """Draws in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(functional.dropout(x, 0.3, training=True))


class Caching(nn.Module):
    """Keeps a tensor from one pass for the next as long as it is large enough: evaluation's may serve in training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.scale = nn.Parameter(torch.ones(FEATURES))
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.kept or len(self.kept[0]) < len(x):
            self.kept = [torch.full((len(x), FEATURES), 0.1)]
        return self.linear(x + self.kept[0][: len(x)] * self.scale)


class Recomputed(nn.Module):
    """Activation checkpointing around a dropout, or not."""

    def __init__(self, recompute: bool = True) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.5))
        self.output = nn.Linear(16, CLASSES)
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        return self.output(checkpoint(self.inner, x, use_reentrant=False) if self.recompute else self.inner(x))


class Giving(nn.Module):
    """A linear layer whose logits come out in another form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.form = form

    def forward(self, x: Tensor) -> object:
        logits = self.linear(x)
        forms = {
            "a tuple": (logits, x),
            "a dict": {"logits": logits},
            "nothing": None,
            "too few": logits[:, :2],
            "a vector": logits[:, 0],
            "an image": logits[:, :, None],
            "another count": logits[:1],
            "detached": logits.detach(),
            "labels": logits.argmax(1, keepdim=True).expand(-1, CLASSES),
        }
        return forms[self.form]


class Idle(nn.Module):
    """Has a layer that no pass uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used = plain()
        self.idle = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Raising(nn.Module):
    """Raises in one of the modes."""

    def __init__(self, training: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.when = training

    def forward(self, x: Tensor) -> Tensor:
        if self.training == self.when:
            raise OSError("not in this mode\nat all")
        return self.linear(x)


class Exploding(nn.Module):
    """Its loss stops being a number at a given step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.linear(x) * (torch.nan if self.steps == self.at else 1.0)


class Steep(nn.Module):
    """Gradients whose norm overflows float32, under a loss that is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.linear.weight.register_hook(lambda gradient: torch.full_like(gradient, 1e30))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Large(nn.Module):
    """Cannot take a batch larger than training's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 32:
            raise ValueError("too many at once")
        return self.linear(x)


class Shift(nn.Module):
    """A normalization layer of the user's, as far as `swap` can see."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class Diary(nn.Linear):
    """Draws a random number in every pass of training, and remembers it."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.drawn: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.drawn.append(torch.rand(()).item())
        return super().forward(x)

"""The family as tables: each pure function beside a plain formula, and the options that layers are tested with."""

import itertools

import torch

from normlab import functional, nn

# Far from the batches drawn below, so that renormalization's r and d lie at their limits and are constants.
FAR_MEAN, FAR_VAR = -50.0, 400.0
R_MAX, D_MAX = 1.5, 0.25
SHAPES = [(7, 6), (5, 6, 4), (3, 6, 3, 4), (4, 6, 2, 3, 2)]


def draw(shape, dtype=torch.float64, seed=0):
    """x, and a weight and a bias for its channels."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(shape, generator=generator, dtype=torch.float64) + 3
    weight, bias = torch.randn(2, shape[1], generator=generator, dtype=torch.float64)
    return x.to(dtype), weight.to(dtype), bias.to(dtype)


def plain(x):
    return x


def channels_last(x):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return (
        x.contiguous(memory_format=formats[x.dim()])
        if x.dim() in formats
        else x.transpose(1, -1).contiguous().transpose(1, -1)
    )


def sliced(x):
    return torch.stack([x, x], -1)[..., 0]


LAYOUTS = [plain, channels_last, sliced]


def by_cell(x, cells, formula):
    """`formula` of each cell's values, put back at their places; cells are index tuples that divide x."""
    y = torch.empty_like(x)
    for cell in cells:
        y[cell] = formula(x[cell])
    return y


def standardized(values, eps=1e-5):
    return (values - values.mean()) / (((values - values.mean()) ** 2).mean() + eps).sqrt()


def over_root_mean_square(values, eps):
    return values / ((values**2).mean() + eps).sqrt()


def channels(x):
    return [(slice(None), c) for c in range(x.shape[1])]


def groups_of(x, width):
    return [(n, slice(c, c + width)) for n, c in itertools.product(range(x.shape[0]), range(0, x.shape[1], width))]


def affine(y, weight, bias):
    column = (1, -1, *[1] * (y.dim() - 2))
    return y * weight.view(column) + bias.view(column)


def naive_ghost(x, weight, bias):
    sizes = {7: [4, 3], 5: [5], 3: [3], 4: [4]}[len(x)]
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    cells = [
        (slice(start, start + size), c)
        for (start, size), c in itertools.product(zip(starts, sizes, strict=True), range(x.shape[1]))
    ]
    return affine(by_cell(x, cells, standardized), weight, bias)


def naive_filter_response(x, weight, bias):
    y = affine(by_cell(x, groups_of(x, 1), lambda values: over_root_mean_square(values, 1e-6)), weight, bias)
    column = (1, -1, *[1] * (x.dim() - 2))
    return torch.where(y > 0.1 * weight.view(column), y, 0.1 * weight.view(column))


def far(x, value):
    return torch.full((x.shape[1],), value, dtype=x.dtype)


FUNCTIONS = {
    "ghost": (
        lambda x, w, b: functional.ghost_batch_norm(x, None, None, w, b, training=True, ghost_size=3)[0],
        naive_ghost,
    ),
    "renorm": (
        lambda x, w, b: functional.batch_renorm(
            x, far(x, FAR_MEAN), far(x, FAR_VAR), w, b, training=True, r_max=R_MAX, d_max=D_MAX
        )[0],
        lambda x, w, b: affine(by_cell(x, channels(x), standardized) / R_MAX + D_MAX, w, b),
    ),
    "mean-only": (
        lambda x, w, b: functional.mean_only_batch_norm(x, None, None, w, b, training=True)[0],
        lambda x, w, b: affine(by_cell(x, channels(x), lambda values: values - values.mean()), w, b),
    ),
    "variance-only": (
        lambda x, w, b: functional.variance_only_batch_norm(x, None, None, w, b, training=True)[0],
        lambda x, w, b: affine(
            by_cell(x, channels(x), lambda values: values / (values.var(correction=0) + 1e-5).sqrt()), w, b
        ),
    ),
    "noisy": (
        lambda x, w, b: functional.noisy_batch_norm(
            x, None, None, w, b, training=True, shift=0.0, scale=1.0, jitter=0.0
        )[0],
        lambda x, w, b: affine(by_cell(x, channels(x), standardized), w, b),
    ),
    "layer": (
        lambda x, w, b: functional.layer_norm(x, w, b),
        lambda x, w, b: affine(by_cell(x, groups_of(x, x.shape[1]), standardized), w, b),
    ),
    "group": (
        lambda x, w, b: functional.group_norm(x, 3, w, b),
        lambda x, w, b: affine(by_cell(x, groups_of(x, 2), standardized), w, b),
    ),
    "instance": (
        lambda x, w, b: functional.instance_norm(x, w, b),
        lambda x, w, b: affine(by_cell(x, groups_of(x, 1), standardized), w, b),
    ),
    "rms": (
        lambda x, w, b: functional.rms_norm(x, w) + 0 * b.sum(),
        lambda x, w, b: affine(
            by_cell(x, groups_of(x, x.shape[1]), lambda values: over_root_mean_square(values, 1e-5)), w, 0 * b
        ),
    ),
    "filter-response": (
        lambda x, w, b: functional.filter_response_norm(x, w, b, 0.1 * w),
        naive_filter_response,
    ),
    "tanh": (
        lambda x, w, b: functional.dynamic_tanh(x, 0.7, w, b),
        lambda x, w, b: affine((1 - torch.exp(-1.4 * x)) / (1 + torch.exp(-1.4 * x)), w, b),
    ),
}

OPTIONS = {"renorm": {"schedule": None}, "instance": {"affine": True}}
"""Options without which a layer shows less of itself."""

NAMES = ["batch", "domain", "filter-response", "frozen", "ghost", "group", "instance", "layer", "mean-only", "noisy"]
NAMES += ["renorm", "rms", "tanh", "variance-only"]
WITH_BATCH_STATISTICS = ["batch", "domain", "ghost", "mean-only", "noisy", "renorm", "variance-only"]


def make(name, dim=2, num_features=6, **options):
    return nn.make_norm(name, num_features, dim, **OPTIONS.get(name, {}) | options)

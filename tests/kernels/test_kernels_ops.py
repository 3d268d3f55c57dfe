"""The native ops as torch sees them, packing, torch.compile, and what they refuse."""

import pytest
import torch

from normlab.kernels import Lanes, Link, Pool, Settings, Tensors, ops, pack, stage, unpack
from normlab.kernels.lanes import pack_reference, unpack_reference
from normlab.kernels.program import written

POOL = Pool("max", (2, 2), (2, 2))
SETTINGS = Settings((1, 1), (1, 1), norm="batch", activation="gelu", pool=POOL)


def lanes(*shape, blocks=2):
    return torch.randn(blocks, *shape, ops.width(), generator=torch.Generator().manual_seed(0))


def chained():
    """A convolution with its norm and pool, a linear layer, an activation alone, and the last two side by side."""
    norm = Settings((1, 1), (1, 1), norm="batch", activation="gelu", pool=POOL)
    links = [
        Link(norm, "conv2d", tracking="finite", share=0.1),
        Link(Settings(), "linear", (0,), flatten=True),
        Link(Settings(norm="fixed", activation="tanh"), "none", (1,), residual=1),
        Link(Settings(), "none", (2, 1)),
    ]
    parts = [
        Tensors(torch.randn(4, 3, 3, 3), torch.randn(4), torch.randn(4), None, torch.zeros(4), torch.ones(4),
                torch.tensor(0), torch.tensor(0)),
        Tensors(torch.randn(7, 4 * 2 * 2)),
        Tensors(mean=torch.zeros(7), var=torch.ones(7)),
        Tensors(),
    ]  # fmt: skip
    tensors = [torch.empty(0) if each is None else each for part in parts for each in part]
    return tensors, *written(links, [True] * len(links))[1:]


def arguments():
    """A call of every op, by its name."""
    count = ops.width() + 3
    image, flat = lanes(3, 5, 4), lanes(7)
    tensors, program, factors = chained()
    saved = torch.ops.normlab.chain(image, count, tensors, program, factors)
    gradient = torch.randn_like(saved[-4])
    return {
        "chain": [(image, count, tensors, program, factors)],
        "track": [(image, count, tensors, saved, program, factors)],
        "chain_backward": [
            (gradient, image, count, tensors, saved, program, factors, needs_x) for needs_x in (True, False)
        ],
        "cross_entropy": [(lanes(10), count, torch.arange(count) % 10)],
        "training_step": [
            (image, count, torch.arange(count) % 7, tensors, program, factors, *gradients)
            for gradients in (([], []), ([5, 0, 1], [0, 1, 2]), ([1, 2, 5], [0, 0, 1]))
        ],
        "pack": [
            (torch.randn(5, 3, 2), None, 1.0, 0.0),
            (torch.randint(0, 256, (5, 3), dtype=torch.uint8), torch.tensor([4, 4, 0]), 0.5, -1.0),
        ],
        "unpack": [(image, count), (flat, count)],
        "unpack_backward": [(torch.randn(count, 3, 2),)],
        "width": [()],
    }


NAMES = [
    "chain", "chain_backward", "cross_entropy", "pack", "track", "training_step", "unpack", "unpack_backward", "width"
]  # fmt: skip


def test_every_op_is_tried(native):
    there = {
        name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("normlab::")
    }
    assert there - {"dropout"} == set(NAMES) == set(arguments())
    assert ops._FAKES.keys() | {"width"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_opcheck(native, name):
    torch.use_deterministic_algorithms(False)  # what is left unwritten differs from call to call
    op = getattr(torch.ops.normlab, name).default
    for given in arguments()[name]:
        wanted = ["test_schema", "test_faketensor"]
        assert set(torch.library.opcheck(op, given, test_utils=wanted).values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", NAMES)
def test_no_memory_is_left_unwritten(native, name):
    op = getattr(torch.ops.normlab, name).default
    for given in arguments()[name]:
        found = op(*given)
        for each in found if isinstance(found, list | tuple) else (found,):
            assert each is None or isinstance(each, int) or each.isfinite().all()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 32, 33])
@pytest.mark.parametrize("shape", [(1,), (5, 3), (2, 4, 8), (1, 28, 28)])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_packing(native, kind, shape, count):
    x = torch.randint(0, 256, (count + 2, *shape), generator=torch.Generator().manual_seed(count)).to(kind)
    index = torch.randint(0, count + 2, (count,), generator=torch.Generator().manual_seed(0))
    for chosen, scale, shift in ((None, 1.0, 0.0), (index, 1.0, 0.0), (None, 1 / 255, -0.5), (index, 2.0, 3.0)):
        packed = pack(x, chosen, scale, shift)
        expected = pack_reference(x, chosen, scale, shift, width=native.width)
        assert packed.count == expected.count
        assert packed.shape == expected.shape
        assert packed.data.dtype == torch.float32
        torch.testing.assert_close(packed.data, expected.data, rtol=2e-7, atol=1e-7)
        assert torch.equal(unpack(packed), unpack_reference(packed))


def test_gradients_of_packing(native):
    x = torch.randn(20, 3, 5)
    index = torch.tensor([3, 3, 19, 0] * 5)
    found = []
    for packing, unpacking in ((pack, unpack), (pack_reference, unpack_reference)):
        leaf = x.clone().requires_grad_()
        y = unpacking(packing(leaf, index, 2.0, 1.0))
        (first,) = torch.autograd.grad((y**3).sum(), leaf, create_graph=True)
        found += [[first, *torch.autograd.grad(first.square().sum(), leaf)]]
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-3)


def whole(x, weight, bias, settings=SETTINGS):
    return unpack(stage(pack(x), settings, weight, bias)[0])


def leaves():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((19, 3, 6, 8), (4, 3, 3, 3), (4,))]


def test_inputs_of_any_strides(native):
    x, weight, bias = leaves()
    expected = whole(x, weight, bias)
    for other in (
        x.to(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([x, x], -1)[..., 1],
        torch.cat([x.flatten(), x.flatten()])[1 : 1 + x.numel()].copy_(x.flatten()).view_as(x),
    ):
        assert torch.equal(whole(other, weight, bias), expected)
    tall = torch.cat([weight, weight], 1)[:, :3]
    assert torch.equal(
        whole(x, tall.contiguous(memory_format=torch.channels_last), torch.stack([bias] * 2, 1)[:, 0]), expected
    )


def test_a_gradient_of_any_strides(native):
    x, weight, bias = (each.requires_grad_() for each in leaves())
    y = whole(x, weight, bias)
    g = torch.randn(y.shape)
    for other in (g.to(memory_format=torch.channels_last), torch.stack([g, g], -1)[..., 0]):
        expected = torch.autograd.grad(y, [x, weight, bias], g, retain_graph=True)
        found = torch.autograd.grad(y, [x, weight, bias], other, retain_graph=True)
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
    expected = torch.autograd.grad(y, x, torch.ones(()).expand_as(y), retain_graph=True)[0]
    assert torch.equal(expected, torch.autograd.grad(y.sum(), x)[0])


X, WEIGHT, BIAS = (4, 3, 6, 6), (4, 3, 3, 3), (4,)
IMAGES = {"x": X, "weight": WEIGHT, "bias": BIAS}


def staged(settings=SETTINGS, **given):
    """The outcome of a stage on tensors of these shapes or on these tensors, forward and backward."""
    tensors = {n: torch.rand(each) if isinstance(each, tuple) else each for n, each in given.items()}
    packed = {n: pack(tensors[n]) for n in ("x", "residual", "mask") if n in tensors}
    return unpack(stage(settings=settings, **tensors | packed)[0])


FLAT = Settings(norm="batch")
REFUSED = {
    "weight of other channels": lambda: staged(**IMAGES | {"weight": (4, 2, 3, 3)}),
    "weight of three dimensions": lambda: staged(**IMAGES | {"weight": (4, 3, 3)}),
    "weight of float64": lambda: staged(**IMAGES | {"weight": torch.rand(WEIGHT).double()}),
    "kernel larger than the image": lambda: staged(**IMAGES | {"weight": (4, 3, 9, 9)}),
    "bias too short": lambda: staged(**IMAGES | {"bias": (3,)}),
    "bias of float64": lambda: staged(**IMAGES | {"bias": torch.rand(4).double()}),
    "stride of zero": lambda: staged(Settings((0, 1)), **IMAGES),
    "padding below zero": lambda: staged(Settings((1, 1), (-1, 0)), **IMAGES),
    "gamma too short": lambda: staged(**IMAGES, gamma=(3,), beta=(4,)),
    "beta too short": lambda: staged(**IMAGES, gamma=(4,), beta=(1,)),
    "mean too short": lambda: staged(Settings(norm="fixed"), x=X, mean=(1,), var=(3,)),
    "no var": lambda: staged(Settings(norm="fixed"), x=X, mean=(3,)),
    "residual of other sides": lambda: staged(Settings(activation="relu"), x=X, residual=(4, 3, 5, 6)),
    "residual of fewer examples": lambda: staged(Settings(activation="relu"), x=(40, 3, 6, 6), residual=X),
    "mask of other channels": lambda: staged(Settings(activation="relu"), x=X, mask=(4, 2, 6, 6)),
    "pool larger than the image": lambda: staged(Settings(pool=Pool("avg", (9, 9), (9, 9))), x=X),
    "pool of stride zero": lambda: staged(Settings(pool=Pool("avg", (2, 2), (0, 2))), x=X),
    "pool padded by more than half": lambda: staged(Settings(pool=Pool("max", (2, 2), (2, 2), (2, 2))), x=X),
    "pool of nothing": lambda: staged(Settings(pool=Pool("max", (0, 2), (2, 2))), x=X),
    "pool of no image": lambda: staged(Settings(pool=POOL), x=(4, 3)),
    "matrix of other features": lambda: staged(FLAT, x=(4, 7), weight=(3, 8)),
    "matrix on images": lambda: staged(FLAT, x=X, weight=(3, 6)),
    "kernel on features": lambda: staged(FLAT, x=(4, 3), weight=WEIGHT),
    "lanes of another width": lambda: stage(Lanes(torch.rand(1, 3, 2), 1), FLAT),
    "lanes of another count": lambda: unpack(Lanes(lanes(3), 100)),
    "lanes of less than none": lambda: unpack(Lanes(lanes(3), -3)),
    "no lanes": lambda: unpack(Lanes(torch.empty(0, 3, ops.width()), 0)),
    "statistics of none": lambda: stage(Lanes(lanes(3), 0), FLAT),
    "statistics of too many": lambda: stage(Lanes(lanes(3), 1000), FLAT),
    "no examples": lambda: pack(torch.empty(0, 3)),
    "no features": lambda: pack(torch.rand(3)),
    "index too large": lambda: pack(torch.rand(3, 2), torch.tensor([0, 3])),
    "index below zero": lambda: pack(torch.rand(3, 2), torch.tensor([-1])),
    "index of int32": lambda: pack(torch.rand(3, 2), torch.tensor([1], dtype=torch.int32)),
    "index of floats": lambda: pack(torch.rand(3, 2), torch.tensor([1.0])),
    "index of two dimensions": lambda: pack(torch.rand(3, 2), torch.tensor([[1]])),
    "no index": lambda: pack(torch.rand(3, 2), torch.empty(0, dtype=torch.int64)),
    "examples of int64": lambda: torch.ops.normlab.pack(torch.ones(3, 2, dtype=torch.int64), None, 1.0, 0.0),
    "gradient of no example": lambda: torch.ops.normlab.unpack_backward(torch.empty(0, 3)),
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(native, call):
    with pytest.raises((RuntimeError, ValueError, IndexError, AssertionError)):
        call()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torch_compile(native):
    torch.use_deterministic_algorithms(False)
    given = [each.requires_grad_() for each in leaves()]
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    expected, found = whole(*given), compiled(*given)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(expected)
    for one, two in zip(torch.autograd.grad(found, given, g), torch.autograd.grad(expected, given, g), strict=True):
        torch.testing.assert_close(one, two)

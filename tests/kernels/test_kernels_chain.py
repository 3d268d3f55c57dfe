"""Chains of several stages beside the modules that they stand for."""

import pytest
import torch
from torch import nn

from normlab.kernels import Chain, Link, Pool, Settings, Tensors, pack, unpack
from normlab.kernels.program import INPUT
from normlab.nn import BatchNorm1d, BatchNorm2d

SIZES = [3, 17, 33, 64]
POOL = Pool("avg", (2, 2), (2, 2))


class Network(nn.Module):
    """A residual block beside its input, a pool and two linear layers, with norms of either make."""

    def __init__(self, ours: bool, momentum: float | None) -> None:
        super().__init__()
        one, two = (BatchNorm1d, BatchNorm2d) if ours else (nn.BatchNorm1d, nn.BatchNorm2d)
        self.ours = ours
        self.heads = nn.ModuleList(
            [
                nn.Conv2d(2, 4, 3, padding=1),
                nn.Conv2d(4, 4, 3, padding=1, bias=False),
                nn.Linear(54, 8),
                nn.Linear(8, 5),
            ]
        )
        self.norms = nn.ModuleList([two(4, momentum=momentum), two(4, momentum=momentum), one(8, momentum=momentum)])

    def forward(self, x):
        y = torch.relu(self.norms[0](self.heads[0](x)))
        y = torch.cat([torch.relu(self.norms[1](self.heads[1](y)) + y), x], 1)
        y = nn.functional.avg_pool2d(y, 2)
        return self.heads[3](self.norms[2](torch.tanh(self.heads[2](y.flatten(1)))))

    def chained(self, x):
        settings = [
            Settings((1, 1), (1, 1), norm="batch", activation="relu"),
            Settings((1, 1), (1, 1), norm="batch", activation="relu"),
            Settings(),
            Settings(pool=POOL),
            Settings(before="tanh", norm="batch"),
            Settings(),
        ]
        share = self.norms[0].momentum
        tracking = "finite" if self.ours else "always"
        kept = {"tracking": tracking, "share": -1.0 if share is None else share}
        links = [
            Link(settings[0], "conv2d", **kept),
            Link(settings[1], "conv2d", (0,), residual=0, **kept),
            Link(settings[2], "none", (1, INPUT)),
            Link(settings[3], "none", (2,)),
            Link(settings[4], "linear", (3,), flatten=True, **kept),
            Link(settings[5], "linear", (4,)),
        ]
        norms = [
            (
                n.weight,
                n.bias,
                n.running_mean,
                n.running_var,
                n.num_batches_tracked,
                getattr(n, "nonfinite_batches", None),
            )
            for n in self.norms
        ]
        tensors = [
            Tensors(head.weight, head.bias, *norm) for head, norm in zip(self.heads, [*norms, ()], strict=True)
        ]
        tensors[2:2] = [Tensors(), Tensors()]
        return unpack(Chain(links, tensors)(pack(x)))


def pair(ours=True, momentum=0.1):
    torch.manual_seed(0)
    fast = Network(ours, momentum)
    plain = Network(ours, momentum).double()
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def assert_same(found, expected, slack=3e-5):
    """By the largest number of each; by a hundredth of the largest of all where it is zero but for rounding."""
    found, expected = list(found), list(expected)
    floor = 0.01 * max(float(each.detach().abs().max()) for each in expected)
    for one, two in zip(found, expected, strict=True):
        scale = max(float(two.detach().abs().max()), floor)
        torch.testing.assert_close(one.double(), two.double(), rtol=0, atol=slack * scale)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_chain_is_its_modules(native, size, ours, momentum):
    fast, plain = pair(ours, momentum)
    for step in range(3):
        x = torch.randn(size, 2, 6, 6, generator=torch.Generator().manual_seed(step))
        one, two = x.clone().requires_grad_(), x.double().requires_grad_()
        y, expected = fast.chained(one), plain(two)
        assert_same([y], [expected])
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(step))
        found = torch.autograd.grad(y, [one, *fast.parameters()], g)
        assert_same(found, torch.autograd.grad(expected, [two, *plain.parameters()], g.double()), slack=2e-3)
        assert_same(fast.buffers(), plain.buffers())


def test_a_batch_that_is_not_finite(native):
    """Moves no buffer of ours, and is counted."""
    fast, _ = pair()
    before = [each.clone() for each in fast.buffers()]
    x = torch.randn(20, 2, 6, 6)
    x[3, 1, 2, 2] = torch.nan
    assert fast.chained(x).isnan().any()
    for name, value in fast.named_buffers():
        if name.endswith("nonfinite_batches"):
            assert value == 1
    kept = [name for name, _ in fast.named_buffers() if not name.endswith("nonfinite_batches")]
    old = dict(zip([name for name, _ in fast.named_buffers()], before, strict=True))
    assert all(torch.equal(dict(fast.named_buffers())[name], old[name]) for name in kept)


def test_autograd_sees_that_buffers_move(native):
    fast, _ = pair()
    before = [each._version for each in fast.buffers()]
    fast.chained(torch.randn(20, 2, 6, 6))
    assert all(each._version > version for each, version in zip(fast.buffers(), before, strict=True))


def test_second_derivatives(native):
    fast, plain = pair()
    x = torch.randn(20, 2, 6, 6)
    found = []
    for model, forward, data in ((fast, fast.chained, x), (plain, plain, x.double())):
        first = torch.autograd.grad(forward(data).square().sum(), list(model.parameters()), create_graph=True)
        found.append(torch.autograd.grad(sum(each.square().sum() for each in first[::3]), model.heads[0].weight))
    assert_same(*found, slack=2e-3)


@pytest.mark.parametrize("frozen", [[0], [0, 1], [2, 3], [0, 1, 2, 3]])
def test_gradients_that_nobody_needs(native, frozen):
    fast, plain = pair()
    for model in (fast, plain):
        for index in frozen:
            model.heads[index].requires_grad_(False)
            if index < 3:
                model.norms[index].requires_grad_(False)
    x = torch.randn(20, 2, 6, 6)
    y, expected = fast.chained(x), plain(x.double())
    assert y.requires_grad == expected.requires_grad
    if not y.requires_grad:
        return
    y.square().sum().backward()
    expected.square().sum().backward()
    found, its = ([each.grad for each in model.parameters()] for model in (fast, plain))
    assert [each is None for each in found] == [each is None for each in its]
    assert_same([each for each in found if each is not None], [each for each in its if each is not None], slack=2e-3)


@pytest.mark.parametrize("threads", [2, 4])
def test_no_thread_count_changes_a_bit(native, threads):
    results = []
    before = torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        fast, _ = pair()
        y = fast.chained(torch.randn(150, 2, 6, 6, generator=torch.Generator().manual_seed(0)))
        y.square().sum().backward()
        results.append([y.detach(), *(each.grad for each in fast.parameters()), *fast.buffers()])
    torch.set_num_threads(before)
    assert all(torch.equal(*each) for each in zip(*results, strict=True))

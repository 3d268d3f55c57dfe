"""What the tests of to_lanes share: a network and the same in lanes, and how they are compared."""

import copy
from collections.abc import Callable

import torch
from lanes_zoo import IMAGE
from torch import Tensor, nn

from compare import assert_close
from normlab.kernels import serving
from normlab.surgery import Changes, to_lanes

ILL = 1e7  # norms of norms: each multiplies what is left of a channel's variance by up to 1 / sqrt(eps)
SCALE = 1e3  # float64 sums in another order, through a network and some steps of training
REFERENCE = serving.Serving("reference", "as these tests ask")


def twins(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module, Changes]:
    """A network, the same in lanes, and what was changed."""
    torch.manual_seed(0)
    plain = make().double()
    with torch.no_grad():
        for name, value in plain.named_buffers():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + ("var" in name))
    fast = copy.deepcopy(plain)
    changes = to_lanes(fast)
    assert changes
    return plain, fast, changes


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same_state(fast: nn.Module, plain: nn.Module, scale: float = SCALE) -> None:
    for (name, value), (its, expected) in zip(
        (*fast.named_parameters(), *fast.named_buffers()),
        (*plain.named_parameters(), *plain.named_buffers()),
        strict=True,
    ):
        assert name == its
        assert_close(value.detach(), expected.detach(), scale=scale, what=name)


def assert_same_step(fast: nn.Module, plain: nn.Module, x: Tensor, seed: int = 0, scale: float = SCALE) -> None:
    """Outputs, gradients (of the input too) and buffers after one pass each way."""
    results = []
    for model in (fast, plain):
        model.zero_grad()
        own = x.clone().requires_grad_()
        torch.manual_seed(seed)
        y = model(own)
        nn.functional.cross_entropy(y, torch.arange(len(y)) % 5).backward()
        results.append((y.detach(), own.grad, torch.get_rng_state()))
    (y, dx, rng), (expected, its_dx, its_rng) = results
    assert_close(y, expected, scale=scale, what="y")
    assert_close(dx, its_dx, scale=scale, what="dx")
    assert torch.equal(rng, its_rng), "each drew as much as the other"
    for (name, value), expected in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert (value.grad is None) == (expected.grad is None), name
        if value.grad is not None:
            assert_close(value.grad, expected.grad, scale=scale, what=f"gradient of {name}")
    assert_same_state(fast, plain, scale)


def assert_same_training(fast: nn.Module, plain: nn.Module, sizes: tuple[int, ...] = (17, 9, 3)) -> None:
    optimizers = [torch.optim.SGD(model.parameters(), 0.1, momentum=0.9) for model in (fast, plain)]
    for step, size in enumerate(sizes):
        assert_same_step(fast, plain, images(size, step), step)
        for optimizer in optimizers:
            optimizer.step()
    modes = [module.training for module in fast.modules()]
    with torch.no_grad():
        assert_close(fast.eval()(images(7)), plain.eval()(images(7)), scale=SCALE, what="in evaluation")
    for model in (fast, plain):
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode

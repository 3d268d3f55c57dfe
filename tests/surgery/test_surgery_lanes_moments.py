"""What batch norms see of a batch, from the kernels and, beside it, from hooks in front of them."""

import pytest
import torch
from lanes_zoo import IMAGE, ZOO
from torch import nn

from compare import assert_close
from normlab.kernels import serving
from normlab.surgery import recalibrate, to_lanes
from normlab.surgery.find import batch_norms
from normlab.surgery.lanes_moments import moments_in_lanes

pytestmark = pytest.mark.skipif(serving.looked_up().name != "native", reason="there are no native kernels here")

WHOLE = ["lenet", "lenet-relu", "lenet-tanh", "mlp", "inception", "resnet8", "resnet", "shared", "ordered"]
"""Networks of the zoo that are one run and have batch norms."""


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return ZOO[name]()


def found(model: nn.Module, x: torch.Tensor) -> bool:
    return moments_in_lanes(model, batch_norms(model).values(), x) is not None


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [(33,), (2, 17, 64)])
def test_statistics_recomputed_in_lanes_are_those_of_plain_torch(name, training, sizes):
    plain, fast = network(name).train(training), network(name).train(training)
    to_lanes(fast)
    batches = [images(size, seed) for seed, size in enumerate(sizes)]
    assert all(found(fast, x) for x in batches)
    assert not any(found(plain, x) for x in batches)
    modes = [module.training for module in fast.modules()]
    done = [recalibrate(model, [(x, None) for x in batches], at_once=True).done for model in (plain, fast)]
    assert done[0] == done[1]
    assert done[0]
    assert [module.training for module in fast.modules()] == modes
    expected = dict(plain.named_buffers())
    for path, value in fast.named_buffers():
        assert_close(value, expected[path], what=f"{name} {path}")


def test_what_the_kernels_do_not_take_is_hooked():
    model = network("lenet")
    to_lanes(model)
    assert not found(model, images(4).double())
    assert not found(model, images(4)[:0])
    assert not found(model, {"x": images(4)})
    handle = model.register_forward_hook(lambda *_: None)
    assert not found(model, images(4))
    handle.remove()
    assert found(model, images(4))


def test_a_frozen_norm_keeps_its_statistics_and_normalizes_by_them():
    plain, fast = network("lenet"), network("lenet")
    to_lanes(fast)
    for model in (plain, fast):
        first, *_ = batch_norms(model.train()).values()
        first.running_mean.fill_(3.0)
        first.eval()
        changes = recalibrate(model, [images(20)], at_once=True)
        assert len(changes.left) == 1
        assert (first.running_mean == 3).all()
    expected = dict(plain.named_buffers())
    for path, value in fast.named_buffers():
        assert_close(value, expected[path], what=path)

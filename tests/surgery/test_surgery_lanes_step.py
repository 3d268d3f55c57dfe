"""Training steps without autograd beside those with it."""

from collections.abc import Callable

import pytest
import torch
from lanes_zoo import IMAGE, ZOO
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle

from normlab.kernels import pack, serving
from normlab.surgery import LanesStep, lanes_step, to_lanes

pytestmark = pytest.mark.skipif(serving.looked_up().name != "native", reason="there are no native kernels here")

WHOLE = [
    "lenet", "lenet-relu", "lenet-none", "lenet-tanh", "mlp", "inception", "resnet8", "resnet", "shared", "ordered",
]  # fmt: skip
"""Networks of the zoo that are one run, and do nothing that a chain cannot."""


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *IMAGE, generator=generator), torch.randint(0, 5, (count,), generator=generator)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = ZOO[name]()
    to_lanes(model)
    return model


def the_step(model: nn.Module) -> LanesStep:
    step = lanes_step(model)
    assert step is not None
    return step


def state(model: nn.Module) -> list[Tensor]:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*gradients, *(each.double() for each in model.buffers())]


@pytest.mark.parametrize("name", [*WHOLE, "settings"])
@pytest.mark.parametrize("count", [1, 16, 45])
def test_a_network_is_judged_as_torch_judges_it(name: str, count: int) -> None:
    model = network(name).eval()
    x, y = batch(count)
    judged = the_step(model).judge(pack(x), y)
    assert judged is not None
    with torch.no_grad():
        logits = model(x)
    assert judged[0] == pytest.approx(cross_entropy(logits, y).item(), rel=1e-5)
    assert judged[1] == int((logits.argmax(1) == y).sum())


def test_the_judged_loss_of_a_broken_network_is_nan() -> None:
    model = network("lenet").eval()
    x, y = batch(20)
    step = the_step(model)
    x[3] = torch.nan
    judged = step.judge(pack(x), y)
    assert judged is not None
    with torch.no_grad():
        logits = model(x)
    assert judged[0] != judged[0]
    assert judged[1] == int((logits.argmax(1) == y).sum())


def test_which_networks_are_one_run() -> None:
    assert [name for name in ZOO if lanes_step(network(name)) is not None] == [*WHOLE, "settings"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_step_is_autograds(name: str) -> None:
    one, other = network(name), network(name)
    step = the_step(one)
    for seed, count in enumerate((33, 33, 7, 64)):
        x, y = batch(count, seed)
        torch.manual_seed(seed)
        outcome = step(pack(x), y)
        other.zero_grad()
        torch.manual_seed(seed)
        logits = other(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        assert outcome is not None
        assert outcome.loss == pytest.approx(loss.item(), rel=1e-5)
        assert outcome.correct == (logits.argmax(1) == y).sum()
        found, expected = state(one), state(other)
        assert len(found) == len(expected) > 0
        norm = torch.cat([each.flatten() for each in expected]).norm()
        for mine, its in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5 * float(norm))
        gradients = [parameter.grad.flatten() for parameter in one.parameters() if parameter.grad is not None]
        assert outcome.gradient_norm == pytest.approx(float(torch.cat(gradients).double().norm()), rel=1e-6)


def test_what_is_frozen_gets_no_gradient() -> None:
    model = network("lenet")
    first, *_, last = model.parameters()
    first.requires_grad_(False)
    last.requires_grad_(False)
    x, y = batch(20)
    assert the_step(model)(pack(x), y) is not None
    assert [each.grad is None for each in model.parameters()].count(True) == 2
    assert first.grad is None
    assert last.grad is None


def test_gradients_are_put_in_the_place_of_others() -> None:
    model = network("lenet")
    x, y = batch(20)
    step = the_step(model.eval())
    step(pack(x), y)
    before = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    step(pack(x), y)
    assert all(torch.equal(each.grad, its) for each, its in zip(model.parameters(), before, strict=True))


def test_a_loss_that_is_no_number() -> None:
    model = network("lenet")
    x, y = batch(20)
    x[3, 0, 5, 5] = torch.nan
    outcome = the_step(model)(pack(x), y)
    assert outcome is not None
    assert outcome.loss != outcome.loss


WATCHED = {
    "the model": lambda model: model.register_forward_hook(lambda *_: None),
    "a layer": lambda model: model[0].register_forward_hook(lambda *_: None),
    "a layer's gradient": lambda model: model[0].register_full_backward_hook(lambda *_: None),
    "all layers": lambda _: nn.modules.module.register_module_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("watch", WATCHED.values(), ids=WATCHED)
def test_a_hook_is_in_the_way(watch: Callable[[nn.Module], RemovableHandle]) -> None:
    model = network("lenet")
    handle = watch(model)
    assert lanes_step(model) is None
    handle.remove()
    assert lanes_step(model) is not None


ODD = {
    "a hook on a gradient": lambda weight: weight.register_hook(lambda g: 2 * g),
    "a hook behind it": lambda weight: weight.register_post_accumulate_grad_hook(lambda _: None),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_what_only_autograd_does(change: Callable[[Tensor], object]) -> None:
    model = network("lenet")
    x, y = batch(20)
    change(model[0].weight)
    buffers = [each.clone() for each in model.buffers()]
    assert the_step(model)(pack(x), y) is None
    assert all(each.grad is None for each in model.parameters())
    assert all(torch.equal(*pair) for pair in zip(buffers, model.buffers(), strict=True)), "nothing was done"


def test_a_norm_that_keeps_its_own_way() -> None:
    x, y = batch(20)
    assert the_step(network("settings"))(pack(x), y) is None


def test_a_weight_of_another_layout() -> None:
    model = network("resnet8").to(memory_format=torch.channels_last)
    x, y = batch(20)
    assert the_step(model)(pack(x), y) is None


def test_without_lanes() -> None:
    assert lanes_step(ZOO["lenet"]()) is None

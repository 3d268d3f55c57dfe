"""Cross-entropy in lanes, and the norm of gradients, beside torch's."""

import pytest
import torch
from torch.nn import functional

from normlab.kernels import Lanes, cross_entropy, pack
from normlab.kernels.lanes import pack_reference
from normlab.kernels.loss import cross_entropy_reference

SIZES = [1, 3, 16, 33, 250]


def drawn(count, classes, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (count,), generator=generator)
    return torch.randn(count, classes, generator=generator) * scale, targets


def outcome(z, targets):
    packed = pack(z)
    numbers, gradient = torch.ops.normlab.cross_entropy(packed.data, packed.count, targets)
    return *numbers.tolist(), gradient


@pytest.mark.parametrize("classes", [1, 2, 10, 101])
@pytest.mark.parametrize("size", SIZES)
def test_loss_and_gradients_are_torchs(native, size, classes):
    z, targets = drawn(size, classes, seed=size)
    exact = z.double().requires_grad_()
    expected = functional.cross_entropy(exact, targets)
    (its,) = torch.autograd.grad(expected, exact)
    leaf = z.clone().requires_grad_()
    loss = cross_entropy(pack(leaf), targets)
    (found,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.double(), its, rtol=0, atol=2e-6 / size)


def test_the_reference_in_float64():
    z, targets = drawn(5, 4)
    data = pack_reference(z.double()).data.requires_grad_()
    assert torch.autograd.gradcheck(lambda each: cross_entropy_reference(Lanes(each, 5), targets), data)
    assert torch.autograd.gradgradcheck(lambda each: cross_entropy_reference(Lanes(each, 5), targets), data)
    assert cross_entropy(Lanes(data, 5), targets) == functional.cross_entropy(z.double(), targets)


def test_second_derivatives(native):
    z, targets = drawn(20, 7)
    found = []
    for leaf, loss in ((z.clone(), lambda each: cross_entropy(pack(each), targets)),
                       (z.double(), lambda each: functional.cross_entropy(each, targets))):  # fmt: skip
        leaf.requires_grad_()
        (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        found += torch.autograd.grad(first.square().sum(), leaf)
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-4, atol=1e-7)


def test_what_is_right_and_what_fills_up(native):
    z, targets = drawn(37, 5)
    assert outcome(z, targets)[1] == (z.argmax(1) == targets).sum()
    _, right, gradient = outcome(torch.zeros(3, 4), torch.tensor([0, 1, 0]))
    assert right == 2  # of equal logits the first is the answer, as argmax has it
    assert not gradient[..., 3:].any()


@pytest.mark.parametrize("scale", [0.0, 80.0, 1e4])
def test_logits_of_any_size(native, scale):
    z, targets = drawn(40, 6)
    loss, _, gradient = outcome(z * scale, targets)
    assert loss == pytest.approx(float(functional.cross_entropy((z * scale).double(), targets)), rel=1e-6)
    assert gradient.isfinite().all()


def test_nan_is_nan(native):
    z, targets = drawn(20, 6)
    z[7, 2] = torch.nan
    loss, _, gradient = outcome(z, targets)
    assert loss != loss
    assert pack(torch.ones(20, 1)).data.shape[0] == gradient.shape[0]
    assert gradient.isnan().any()


@pytest.mark.parametrize("threads", [2, 4])
def test_no_thread_count_changes_a_bit(native, threads):
    z, targets = drawn(1000, 10)
    found, before = [], torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        loss, _, gradient = outcome(z, targets)
        found.append((loss, gradient))
    torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ((20, 3), torch.full((20,), 3)),
        ((20, 3), torch.full((20,), -1)),
        ((20, 3), torch.zeros(19, dtype=torch.int64)),
        ((20, 3), torch.zeros(20, dtype=torch.int32)),
        ((20, 3, 2, 2), torch.zeros(20, dtype=torch.int64)),
    ],
    ids=["too large", "below zero", "too few", "int32", "images"],
)
def test_what_is_refused(native, logits, targets):
    packed = pack(torch.zeros(logits))
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.normlab.cross_entropy(packed.data, packed.count, targets)

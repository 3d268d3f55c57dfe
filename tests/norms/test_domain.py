"""Domain-specific batch norm: which statistics are at work, and the context that says so."""

import pytest
import torch

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError


def model(**options):
    return torch.nn.Sequential(torch.nn.Linear(3, 4), nn.DomainBatchNorm1d(4, **options), torch.nn.Linear(4, 2))


def test_each_domain_trains_and_evaluates_with_its_own():
    net = model()
    batches = [torch.randn(8, 3), 5 * torch.randn(8, 3) + 7]
    twins = [nn.BatchNorm1d(4), nn.BatchNorm1d(4)]
    for domain in (0, 1, 1):
        with nn.in_domain(net, domain):
            net(batches[domain]).sum().backward()
        twins[domain](net[0](batches[domain]))
    for domain, twin in enumerate(twins):
        assert_close(net[1].domains[domain].running_mean, twin.running_mean)
        with nn.in_domain(net.eval(), domain):
            assert_close(net(batches[domain]), net[2](twin.eval()(net[0](batches[domain]))))
    assert not torch.equal(net[1].domains[0].weight.grad, net[1].domains[1].weight.grad)


def test_contexts_nest_and_are_left_as_they_were_found():
    net = model(num_domains=3)
    layer = net[1]

    def fail():
        with nn.in_domain(net, 2):
            assert layer.domain == 2
            raise RuntimeError("on the way")

    with nn.in_domain(net, 1):
        with pytest.raises(RuntimeError, match="on the way"):
            fail()
        assert layer.domain == 1
    assert layer.domain == 0


def test_another_model_is_not_meant():
    one, other = model(), model()
    with nn.in_domain(one, 1):
        assert other[1].domain == 0


def test_a_mask_goes_through():
    layer = nn.DomainBatchNorm1d(4)
    mask = torch.tensor([[True], [True], [False]])
    assert (layer(torch.randn(3, 4), mask)[2] == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.DomainBatchNorm1d(4, num_domains=0), "num_domains of 1 or more"),
        (lambda: nn.in_domain(model(), 2).__enter__(), "a domain from 0 to 1, got 2"),
        (lambda: nn.in_domain(model(), -1).__enter__(), "a domain from 0 to 1, got -1"),
        (
            lambda: nn.in_domain(torch.nn.Linear(2, 2), 0).__enter__(),
            "a model with domain-specific norms, got a Linear",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(NormlabError, match=message):
        make()

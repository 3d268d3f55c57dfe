"""synchronize: every batch norm becomes ours that asks the other processes, and nothing else does."""

import pytest
import torch
from torch import nn

from normlab import nn as ours
from normlab.errors import NormlabError
from normlab.models import lenet
from normlab.surgery import synchronize
from normlab.surgery.find import SYNCHRONIZED


@pytest.mark.parametrize("module", [nn, ours])
def test_torchs_and_ours_of_every_dimension(module) -> None:
    model = nn.Sequential(
        module.BatchNorm1d(3, eps=0.1), module.BatchNorm2d(4, momentum=None), module.BatchNorm3d(5, affine=False)
    ).eval()
    model[0].running_mean += 1
    before = model.state_dict()
    changes = synchronize()(model)
    assert [*changes.done] == ["0", "1", "2"]
    assert changes.left == {}
    assert [type(norm) for norm in model] == [*SYNCHRONIZED]
    assert (model[0].eps, model[1].momentum, model[2].affine, model[0].training) == (0.1, None, False, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changes.undo()
    assert [type(norm) for norm in model] == [module.BatchNorm1d, module.BatchNorm2d, module.BatchNorm3d]


def test_a_network_computes_as_before() -> None:
    model, x = lenet(seed=0), torch.randn(4, 1, 28, 28)
    expected = model(x)
    assert len(synchronize()(model).done) == 4
    assert torch.equal(model(x), expected)


def test_torchs_synchronized_one_too_since_it_refuses_cpus() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.SyncBatchNorm(3))
    assert [*synchronize()(model).done] == ["1"]
    assert model(torch.randn(2, 1, 5, 5)).shape == (2, 3, 3, 3)


def test_what_is_more_than_batch_norm_is_left_and_named() -> None:
    layers = [ours.make_norm(name, 3, 2) for name in ("ghost", "renorm", "frozen", "noisy", "sync", "group", "none")]
    model = nn.Sequential(*layers)
    changes = synchronize()(model)
    assert not changes
    assert [*model] == layers
    over_a_batch = [str(index) for index, layer in enumerate(layers[:4]) if isinstance(layer, nn.BatchNorm2d)]
    assert [*changes.left] == over_a_batch
    assert changes.left["0"] == "GhostBatchNorm2d keeps to each process's own examples"


def test_the_model_itself_is_refused() -> None:
    with pytest.raises(NormlabError, match="a norm inside a model"):
        synchronize()(nn.BatchNorm2d(3))

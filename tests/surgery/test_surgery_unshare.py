"""unshare: statistics for each place, gamma and beta still the same parameters."""

import pytest
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.surgery import recalibrate, unshare


class Two(nn.Module):
    """One norm behind two layers of very different outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        nn.init.constant_(self.second.bias, 10.0)
        self.norm = nn.BatchNorm1d(4)
        self.again = self.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.second(torch.relu(self.norm(self.first(x)))))


def test_training_is_the_same_and_evaluation_fits_each_place() -> None:
    torch.manual_seed(0)
    model, x = Two(), torch.randn(64, 4)
    trained = model(x)
    changes = unshare(("norm",))(model)
    assert changes.done == {"norm": "a norm of its own at each of 2 places"}
    assert model.again is not model.norm
    assert model.again.weight is model.norm.weight
    assert torch.equal(model(x), trained)
    recalibrate(model, [x])
    torch.testing.assert_close(model.eval()(x), trained, rtol=1e-4, atol=1e-4)
    assert (model.again.running_mean - model.norm.running_mean).abs().max() > 5


def test_an_optimizer_that_knows_gamma_and_beta_goes_on() -> None:
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keys = list(model.state_dict())
    unshare(("again",))(model)
    assert {*model.parameters()} == {each for group in optimizer.param_groups for each in group["params"]}
    assert list(model.state_dict()) == keys


def test_undo_shares_again() -> None:
    model = Two()
    norm = model.norm
    unshare(("norm",))(model).undo()
    assert model.norm is model.again is norm


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.BatchNorm1d(4)), "is held at one place"),
        (nn.Sequential(*[nn.LayerNorm(4)] * 2), "keeps no running statistics"),
    ],
)
def test_left(model: nn.Module, why: str) -> None:
    changes = unshare(("0",))(model)
    assert not changes
    assert changes.left["0"].startswith(why)


def test_an_unknown_path() -> None:
    with pytest.raises(NormlabError, match="expected the path of a module, got 'nowhere'"):
        unshare(("norm", "nowhere"))(Two())

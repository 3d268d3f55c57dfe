"""fix: what it does when several things are wrong, when it lacks something, and when it fails half-way."""

from pathlib import Path

import pytest
import torch
from states import state_of
from torch import Tensor, nn

from normlab import check
from normlab.errors import NormlabError
from normlab.nn import FrozenBatchNorm2d
from normlab.rules import all_rules


def images() -> Tensor:
    return 2 + 3 * torch.randn(16, 3, 8, 8)


def stale() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=1.5), nn.ReLU())


def test_a_mended_layer_is_asked_again_before_the_next_rule_mends_it() -> None:
    """With one group in place of eight the bias in front of it is no longer redundant."""
    model = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(8, 8), nn.ReLU())
    diagnosis = check(model, torch.randn(5, 4))
    assert set(diagnosis.found) == {"NL502", "NL506"}
    changes = diagnosis.fix()
    assert model[1].num_groups == 1
    assert model[0].bias is not None
    assert changes.done["NL506 0"] == "no longer found"


def test_one_mend_may_be_that_of_several_rules() -> None:
    class WrittenRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8)), 1e-8

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight

    model = nn.Sequential(nn.Linear(4, 8), WrittenRMSNorm()).half()
    changes = check(model, torch.randn(5, 4).half()).fix()
    assert changes.done == {
        "NL512 1": "computes in float32",
        "NL513 1": "no longer found",
        "NL514 1": "no longer found",
    }
    assert not check(model, torch.randn(5, 4).half()).findings


def test_without_data_it_says_what_they_are_needed_for() -> None:
    model = stale()
    before = model[1].running_mean.clone()
    changes = check(model).fix()
    assert changes.done == {"NL204 1": "momentum 1.5 -> 0.1"}
    assert changes.left == {"NL204 1": "running statistics need training data: fix(data)"}
    assert torch.equal(model[1].running_mean, before)


def test_data_are_gone_through_for_statistics_alone_and_once() -> None:
    model, x = stale(), images()
    model[1].running_var.fill_(-1.0)
    begun = 0

    def data() -> list[Tensor]:
        nonlocal begun
        begun += 1
        return [x]

    diagnosis = check(model)
    assert {"NL204", "NL211"} <= set(diagnosis.found)
    changes = diagnosis.fix(data)
    assert begun == 2  # to see the order of the layers, and for the one norm
    assert changes.done["NL204 1"] == "momentum 1.5 -> 0.1; running statistics recomputed"
    assert changes.done["NL211 1"] == "running statistics recomputed"
    mean = model[0](x).mean((0, 2, 3))
    torch.testing.assert_close(model[1].running_mean, mean)
    assert not check(model, x).findings
    model[1].momentum = 0.1
    check(model).fix(lambda: pytest.fail("nothing needs data"))


def test_statistics_that_no_batch_norm_keeps_need_no_data() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8, eps=0.8))
    changes = check(model, select=["NL205"]).fix()
    assert changes.done == {"NL205 1": "eps 0.8 -> 1e-05"}
    assert not changes.left


def test_what_no_surgery_mends_is_left_with_the_remedy() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(1))
    assert check(model).fix().left == {"NL501 1": all_rules()["NL501"].remedy}


def test_data_that_fail_leave_the_model_as_before() -> None:
    model = stale()
    before = state_of(model)

    def broken() -> list[Tensor]:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        check(model).fix(broken)
    assert state_of(model) == before


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_optimizer_is_mended_where_nobody_counts_its_groups(scheduled: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    if scheduled:
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
    changes = check(model, optimizer=optimizer, select=["NL402"]).fix()
    assert bool(changes.done) != scheduled
    assert bool(changes.left) == scheduled
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5
    assert [group["weight_decay"] for group in optimizer.param_groups] == ([0.1] if scheduled else [0.1, 0.0])


def test_norms_in_a_row_are_left_where_they_are_not_the_same() -> None:
    turned = nn.BatchNorm2d(4)
    nn.init.constant_(turned.weight, -1.0)
    for first, second in ((turned, nn.BatchNorm2d(4)), (nn.InstanceNorm2d(4), nn.BatchNorm2d(4))):
        model = nn.Sequential(first, second)
        changes = check(model, select=["NL104"]).fix([torch.randn(8, 4, 3, 3)])
        assert changes.left["NL104 1"].endswith("leave out either")
        assert list(model) == [first, second]


def test_the_first_of_two_norms_in_a_row_was_not_needed() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 5 + 3 * torch.randn(64, 4, 3, 3)
    for _ in range(200):
        model(x)
    trained, evaluated = model(x), model.eval()(x)
    model.train()
    check(model, select=["NL104"]).fix([x])
    torch.testing.assert_close(model(x), trained, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.eval()(x), evaluated, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("parametrized", [False, True])
def test_a_scale_that_is_taken_off_is_left_out_as_it_is_now(parametrized: bool) -> None:
    apply = nn.utils.parametrizations.weight_norm if parametrized else nn.utils.spectral_norm
    model, x = nn.Sequential(apply(nn.Conv2d(3, 4, 3, bias=False)), nn.BatchNorm2d(4)), images()
    model(x)
    evaluated = model.eval()(x)
    changes = check(model.train(), select=["NL107"]).fix()
    assert list(changes.done) == ["NL107 0"]
    assert list(dict(model[0].named_parameters())) == ["weight"]
    torch.testing.assert_close(model.eval()(x), evaluated)


@pytest.mark.parametrize(
    ("source", "norm"),
    [
        (nn.Conv2d(3, 9, 3), nn.BatchNorm2d(4, eps=1e-3, affine=False)),
        (nn.Conv2d(3, 9, 3), nn.GroupNorm(2, 4)),
        (nn.Linear(8, 9), nn.LayerNorm(4, bias=False)),
        (nn.Linear(8, 9), nn.RMSNorm(4)),
    ],
)
def test_a_norm_for_other_channels_is_made_anew_with_its_settings(source: nn.Module, norm: nn.Module) -> None:
    model = nn.Sequential(source, norm)
    changes = check(model, select=["NL105"]).fix()
    assert changes.done
    assert model(images()).isfinite().all()
    assert model[1].eps == norm.eps
    assert [name for name, _ in model[1].named_parameters()] == [name for name, _ in norm.named_parameters()]
    changes.undo()
    assert model[1] is norm


@pytest.mark.parametrize(("trained", "kind"), [(True, FrozenBatchNorm2d), (False, nn.BatchNorm2d)])
def test_momentum_0_is_frozen_where_there_is_something_to_freeze_it_at(trained: bool, kind: type[nn.Module]) -> None:
    model = nn.Sequential(nn.BatchNorm2d(4, momentum=0.0), nn.ReLU())
    if trained:
        model[0].running_mean.fill_(0.5)
    assert check(model, select="NL202").fix().done
    assert type(model[0]) is kind
    assert model[0].momentum == (0.0 if trained else 0.1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4).requires_grad_(False), nn.BatchNorm2d(4).eval()])
def test_a_new_norm_is_not_frozen_at_what_normalizes_nothing(norm: nn.Module) -> None:
    model = nn.Sequential(norm, nn.ReLU())
    changes = check(model, select=["NL206", "NL207"]).fix()
    assert not changes.done
    assert [*changes.left.values()] == ["its running statistics are those of a new layer: recalibrate first"]
    assert model[0] is norm


def test_some_rules_alone_are_mended() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=1.5), nn.ReLU())
    assert list(check(model).fix(select="NL2").done) == ["NL204 1"]
    assert model[0].bias is not None
    with pytest.raises(NormlabError, match="expected a known rule, got 'NL9'"):
        check(model).fix(select=["NL9"])


def test_only_the_bias_before_a_norm_of_the_batch_is_removed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), FrozenBatchNorm2d(4))
    assert list(check(model, select="NL101").fix().done) == ["NL101 0"]
    assert model[2].bias is not None


def test_a_wrapped_model_is_not_taken_apart(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(stale())
        with pytest.raises(NormlabError, match="mend its module, then wrap it"):
            check(wrapped).fix()
    finally:
        torch.distributed.destroy_process_group()

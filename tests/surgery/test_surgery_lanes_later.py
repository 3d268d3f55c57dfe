"""to_lanes: whatever is done to a network in lanes later, it is still the network."""

import copy
import io

import pytest
import torch
from lanes_twins import SCALE, assert_same_state, assert_same_step, assert_same_training, images, twins
from lanes_zoo import ZOO, BasicBlock, OwnPool
from torch import Tensor, nn

from compare import assert_close
from normlab import surgery
from normlab.models import DropoutStreams
from normlab.surgery import to_lanes

pytestmark = pytest.mark.usefixtures("reference")


def test_the_state_dict_and_an_optimizer_built_before() -> None:
    torch.manual_seed(0)
    plain = ZOO["lenet"]().double()
    fast = copy.deepcopy(plain)
    optimizers = [torch.optim.Adam(model.parameters(), 0.01) for model in (fast, plain)]
    keys = list(fast.state_dict())
    to_lanes(fast)
    assert list(fast.state_dict()) == keys == list(plain.state_dict())
    for step in range(3):
        assert_same_step(fast, plain, images(8, step))
        for optimizer in optimizers:
            optimizer.step()
    fresh = ZOO["lenet"]().double()
    to_lanes(fresh)
    fresh.load_state_dict(plain.state_dict())
    assert_same_step(fresh, plain, images(8))
    plain.load_state_dict(fresh.state_dict())


@pytest.mark.parametrize("name", ["lenet-relu", "resnet", "shared"])
def test_a_deep_copy_runs_on_its_own(name: str, counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO[name])
    fast(images(3)), plain(images(3))
    other, before = copy.deepcopy(fast), copy.deepcopy(fast.state_dict())
    counted.clear()
    assert_same_training(other, copy.deepcopy(plain))
    assert counted
    assert all(torch.equal(value, before[key]) for key, value in fast.state_dict().items())
    assert all(parameter.grad is None for parameter in fast.parameters())
    assert vars(other)["forward"]._owner is other


def test_saved_whole_and_loaded(counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert_same_training(loaded, plain)
    assert counted


def test_undo_leaves_nothing(counted: list[int]) -> None:
    for name in ZOO:
        plain, fast, changes = twins(ZOO[name])
        before = [dict(vars(module)) for module in plain.modules()]
        changes.undo()
        assert [list(vars(module)) for module in fast.modules()] == [list(kept) for kept in before]
        torch.manual_seed(1)
        y = fast(images(3))
        torch.manual_seed(1)
        assert torch.equal(y, plain(images(3)))
        changes.undo()
    assert not counted


def test_undo_leaves_the_forward_of_somebody_else() -> None:
    _, fast, changes = twins(ZOO["mlp"])
    fast.forward = mine = lambda x: x
    changes.undo()
    assert fast.forward is mine


def test_a_second_time_changes_nothing() -> None:
    _, fast, _ = twins(ZOO["mlp"])
    again = to_lanes(fast)
    assert not again
    assert again.left == {"": "its forward is replaced already"}


def test_hooks_see_plain_tensors(counted: list[int]) -> None:
    plain, fast, changes = twins(ZOO["lenet"])
    seen: dict[nn.Module, list[Tensor]] = {plain: [], fast: []}
    handles = []
    for model in (plain, fast):
        keep = seen[model].append
        handles += [
            model.norm1.register_forward_hook(lambda _, x, y, keep=keep: keep(y.detach())),
            model.conv2.register_forward_pre_hook(lambda _, x, keep=keep: keep(x[0].detach())),
            model.activation3.register_full_backward_hook(lambda _, dx, dy, keep=keep: keep(dy[0])),
            model.linear4.register_forward_hook(lambda _, x, y: y * 2),
        ]
    assert_same_step(fast, plain, images(5))
    assert len(seen[fast]) == 3
    for value, expected in zip(seen[fast], seen[plain], strict=True):
        assert type(value) is Tensor
        assert_close(value, expected, scale=SCALE)
    for handle in handles:
        handle.remove()
    counted.clear()
    assert_same_step(fast, plain, images(5))
    assert len(counted) == len(changes.done), "and without them all is as before"


def test_hooks_on_what_is_traced_through_and_on_everything(counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    shapes = []
    handle = fast.layer1[0].register_forward_hook(lambda _, x, y: shapes.append(y.shape))
    assert_same_step(fast, plain, images(5))
    handle.remove()
    assert shapes == [(5, 4, 8, 8)]
    assert not counted
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        fast(images(5))
    finally:
        handle.remove()
    plain(images(5))
    assert fast.layer1[0].bn1 in calls
    assert not counted
    assert_same_step(fast, plain, images(5))
    assert counted


def test_the_models_own_hooks() -> None:
    plain, fast, _ = twins(ZOO["mlp"])
    for model in (plain, fast):
        model.register_forward_hook(lambda _, x, y: y * 3)
        model.register_full_backward_hook(lambda _, dx, dy: None)
    assert_same_step(fast, plain, images(5))


def test_dropout_streams_stay_in_lanes(counted: list[int]) -> None:
    plain, fast, changes = twins(ZOO["lenet-relu"])
    for model in (plain, fast):
        with DropoutStreams(model, 7, torch.device("cpu")) as streams:
            for step in range(2):
                streams.at(0, step)
                y = model(images(6, step))
                streams.at(1, step)
                model(images(6, step))
        model.result = y.detach()
    assert_close(fast.result, plain.result, scale=SCALE)
    assert_same_state(fast, plain)
    assert len(counted) == 4 * len(changes.done)


def test_a_hook_that_reads_a_dropout_gets_what_goes_through() -> None:
    _, fast, _ = twins(ZOO["lenet-relu"])
    seen = []
    fast.dropout3.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    fast(images(4))
    assert seen[0].unique().numel() > 2


def test_modules_that_are_exchanged() -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    fast(images(3)), plain(images(3))
    for model in (plain, fast):
        torch.manual_seed(5)
        model.fc = nn.Linear(8, 7).double()
        model.layer1[1] = BasicBlock(4, 4).double()
        model.layer2[0].downsample[1] = nn.Identity()
    assert_same_step(fast, plain, images(4))
    for model in (plain, fast):
        surgery.swap("batch", "none")(model)
    assert_same_step(fast, plain, images(4))
    for model in (plain, fast):
        model.layer1.append(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()).double())
        torch.manual_seed(2)
        model.layer1[2][0].reset_parameters()
        model.layer2 = nn.Sequential(*model.layer2, nn.Hardtanh())
    assert_same_step(fast, plain, images(4))


def test_settings_that_are_changed() -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    fast(images(3)), plain(images(3))

    def change(name: str, value: object, *paths: str) -> None:
        for model in (plain, fast):
            for path in paths:
                setattr(model.get_submodule(path), name, value)
        assert_same_step(fast, plain, images(4))

    change("eps", 0.5, "bn1")
    change("momentum", None, "bn1")
    change("kernel_size", 4, "maxpool")
    change("padding", (2, 2), "conv1")
    change("stride", 1, "layer2.0.conv1", "layer2.0.downsample.0")
    change("downsample", None, "layer1.0")
    plain, fast, _ = twins(ZOO["nested"])
    change("activate", False, "features.init_block")
    change("activate", True, "features.init_block")
    change("p", 0.0, "features")
    plain, fast, _ = twins(ZOO["lenet-relu"])
    change("p", 0.9, "dropout3")


def test_other_parameters_modes_and_precisions() -> None:
    plain, fast, _ = twins(ZOO["lenet"])
    for model in (plain, fast):
        model.conv1.requires_grad_(False)
        model.norm3.weight.requires_grad_(False)
        model.norm2.eval()
        model.linear4.bias = None
        model.linear3.weight = nn.Parameter(model.linear3.weight.detach() * 2)
    assert_same_training(fast, plain)
    plain.float(), fast.float()
    assert torch.allclose(fast(images(4).float()), plain(images(4).float()), atol=1e-5)
    fast.linear3.double()
    with pytest.raises(RuntimeError, match="mat1 and mat2 must have the same dtype, but got Float and Double"):
        fast(images(4).float())


def test_a_layer_that_becomes_another_class() -> None:
    plain, fast, _ = twins(ZOO["lenet"])
    for model in (plain, fast):
        nn.utils.parametrizations.weight_norm(model.conv2)
        model.pool1.__class__ = OwnPool
    assert_same_step(fast, plain, images(4))
    for model in (plain, fast):
        nn.utils.parametrize.remove_parametrizations(model.conv2, "weight")
        model.pool1.__class__ = nn.AvgPool2d
    assert_same_step(fast, plain, images(4))


def test_freeze_and_recalibrate(counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO["lenet-tanh"])
    for model in (plain, fast):
        surgery.recalibrate(model, lambda: [images(8), images(5, 1)])
    assert_same_state(fast, plain)
    assert counted
    for model in (plain, fast):
        surgery.freeze("statistics")(model)
    assert_same_step(fast, plain, images(4))

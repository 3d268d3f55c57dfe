"""Batch norm over real processes against batch norm of the union of their batches, in one."""

import copy
import itertools
import pickle

import numpy
import pytest
import torch
import torch.distributed as dist

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError
from normlab.norms.batch import batch_norm
from normlab.norms.synchronized import SyncBatchNorm1d, SyncBatchNorm2d, sync_batch_norm
from processes import Processes

WORLD = 3


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    started = Processes(tmp_path_factory.mktemp("group") / "store", WORLD)
    yield started
    started.end()


# What the union holds, and how its first dimension is divided: unevenly, and with nothing for one of them.
CASES = {
    "(7, 3)": ((7, 3), (4, 1, 2)),
    "(9, 3, 4)": ((9, 3, 4), (1, 1, 7)),
    "(6, 2, 3, 2)": ((6, 2, 3, 2), (2, 3, 1)),
    "(5, 2, 2, 1, 3)": ((5, 2, 2, 1, 3), (1, 2, 2)),
    "one each": ((3, 4), (1, 1, 1)),
    "an empty part": ((5, 3, 2), (3, 0, 2)),
    "one has it all": ((4, 3), (0, 4, 0)),
    "257": ((257, 2, 3), (100, 156, 1)),
}
EPS = {"eps 1e-5": 1e-5, "eps 0": 0.0, "eps 0.1": 0.1}


def union(shape, dtype, offset=0.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x + torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1)) + offset  # the parts have means of their own
    weight, bias, mean, var = torch.randn(4, shape[1], generator=generator, dtype=torch.float64)
    g = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(shape[0], *shape[2:], generator=generator) < 0.7
    return [each.to(dtype) for each in (x, weight, bias, mean, var.abs(), g)], mask


def outcome(function, part, values, mask, eps):
    """y, its gradients, those of the gradients' squares, and the running statistics, of the part of the union."""
    x, weight, bias, mean, var, g = values
    x = x[part].clone().requires_grad_()
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    options = {"training": True, "momentum": 0.3, "eps": eps, "mask": None if mask is None else mask[part]}
    y, new_mean, new_var = function(x, mean, var, weight, bias, **options)
    first = torch.autograd.grad((y * g[part]).sum() + y.pow(3).sum(), (x, weight, bias), create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), (x, weight))
    return (
        [each.detach() for each in (y, first[0], second[0])],
        [each.detach() for each in (*first[1:], second[1])],
        [
            new_mean,
            new_var,
        ],
    )


def parts(sizes):
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def run_case(rank, shape, sizes, dtype, eps, masked, offset=0.0):
    values, mask = union(shape, dtype, offset)
    found = outcome(sync_batch_norm, parts(sizes)[rank], values, mask if masked else None, eps)
    return [[each.numpy() for each in kind] for kind in found]


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("eps", EPS.values(), ids=EPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_parts_of_a_batch_give_what_the_whole_gives(processes, case, dtype, eps, masked):
    shape, sizes = case
    found = processes.ask(run_case, shape, sizes, dtype, eps, masked)
    values, mask = union(shape, torch.float64)
    whole = outcome(batch_norm, slice(None), values, mask if masked else None, eps)
    of_parts, of_parameters, running = zip(*found, strict=True)
    # Squares of gradients: their condition is that of 1/sigma, three times.
    for name, expected, *parted in zip(("y", "dx", "ddx"), whole[0], *of_parts, strict=True):
        close(torch.cat([*map(torch.from_numpy, parted)]), expected, name)
    for name, expected, *parted in zip(("dweight", "dbias", "ddweight"), whole[1], *of_parameters, strict=True):
        close(sum(map(torch.from_numpy, parted)), expected, name)
    for name, expected, *parted in zip(("mean", "var"), whole[2], *running, strict=True):
        assert len({each.tobytes() for each in parted}) == 1, "the same in every process, bit for bit"
        close(torch.from_numpy(parted[0]), expected, name)


def close(found, expected, what):
    """To 1e-13 in float64 and 5e-6 in float32, of the largest."""
    tolerance = {torch.float64: 1e-13, torch.float32: 5e-6}[found.dtype]
    off = (found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
    assert off <= tolerance, f"{what} is off by {off:.1e}"


def run_layer(rank, batches, options, training):
    """The state of a layer after its part of each batch, and y of the last."""
    layer = SyncBatchNorm1d(batches[0][0].shape[1], **options).to(batches[0][0].dtype).train(training)
    for parted in batches:
        y = layer(parted[rank]).detach()
        assert y.dtype == parted[rank].dtype
    state = {name: value.double().numpy() for name, value in layer.state_dict().items()}
    return state, layer.nonfinite_batches.item(), y.double().numpy()


def draws(*sizes, seed=0, dtype=torch.float64, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 3, generator=generator, dtype=torch.float64) + offset).to(dtype) for n in sizes]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_layers_running_statistics_are_those_of_one_layer_that_sees_it_all(processes, momentum):
    batches = [draws(2, 5, 1, seed=seed) for seed in range(4)]
    one = nn.BatchNorm1d(3, momentum=momentum).double()
    for parted in batches:
        whole = one(torch.cat(parted))
    for rank, (state, _, y) in enumerate(processes.ask(run_layer, batches, {"momentum": momentum}, True)):
        assert_close(torch.from_numpy(y), whole[parts((2, 5, 1))[rank]])
        for name, value in one.state_dict().items():
            assert_close(torch.as_tensor(state[name]), value.double(), what=name)


def test_what_is_not_finite_in_one_process_moves_no_buffer_in_any(processes):
    good, bad = draws(2, 3, 1), draws(2, 3, 1)
    bad[1][0, 2] = float("nan")
    before = processes.ask(run_layer, [good], {}, True)
    for (state, _, _), (later, counted, y) in zip(
        before, processes.ask(run_layer, [good, bad], {}, True), strict=True
    ):
        assert counted == 1
        assert all((value == later[name]).all() for name, value in state.items())
        assert numpy.isnan(y).any(0).tolist() == [False, False, True]


def test_evaluation_asks_nobody(processes):
    parted = draws(2, 3, 1)
    for rank, (_, _, y) in enumerate(processes.ask(run_layer, [parted], {}, False)):
        assert torch.equal(torch.from_numpy(y), nn.BatchNorm1d(3).double().eval()(parted[rank]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mean_ten_thousand_sigmas_away_and_half_precision(processes, dtype):
    offset = 1e4 if dtype == torch.float32 else 3.0
    parted = draws(50, 7, 200, dtype=dtype, offset=offset)
    exact = torch.cat(parted).double()
    expected = (exact - exact.mean(0)) / exact.std(0, correction=0)
    found = numpy.concatenate([y for _, _, y in processes.ask(run_layer, [parted], {"eps": 0.0}, True)])
    assert_close(torch.from_numpy(found).to(dtype), expected, scale=1000 if dtype == torch.float32 else 1)


def test_a_constant_channel_at_eps_zero_gives_beta(processes):
    parted = [torch.full((n, 3), 0.1, dtype=torch.float64) for n in (6, 0, 43)]
    for state, _, y in processes.ask(run_layer, [parted], {"eps": 0.0}, True):
        assert (y == 0).all()
        assert state["running_var"].tolist() == [0.9] * 3


def run_mask(rank, parted, mask):
    return sync_batch_norm(parted[rank], training=True, mask=mask if rank == 1 else None)[0].numpy()


def test_one_process_alone_may_have_a_mask(processes):
    parted, mask = draws(2, 4, 1), torch.tensor([True, False, True, True])
    found = processes.ask(run_mask, parted, mask)
    whole = torch.cat([parted[0], parted[1][mask], parted[2]])
    expected, _, _ = batch_norm(whole, training=True)
    assert_close(torch.from_numpy(found[0]), expected[:2])
    assert_close(torch.from_numpy(found[1])[mask], expected[2:5])


def network(dtype, norm, **options):
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(1, 4, 3), norm(4, **options), torch.nn.ReLU(), torch.nn.Flatten())
    return torch.nn.Sequential(*layers, torch.nn.Linear(4 * 6 * 6, 5)).to(dtype)


def images(dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 256, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(5, (20, 256), generator=generator)


def descend(net, batches, labels, part, add_up):
    """Twenty steps on the mean loss of all 256 images, of which this process has a part."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for x, y in zip(batches, labels, strict=True):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x[part]), y[part], reduction="sum") / 256
        loss.backward()
        for parameter in net.parameters():
            add_up(parameter.grad)
        optimizer.step()
    return {name: value.detach() for name, value in net.state_dict().items()}


def run_training(rank, dtype):
    pair = dist.new_group([0, 1])
    if rank == 2:
        return {}
    net = network(dtype, SyncBatchNorm2d, process_group=pair)
    part = parts((100, 156))[rank]
    state = descend(net, *images(dtype), part, lambda gradient: dist.all_reduce(gradient, group=pair))
    return {name: value.numpy() for name, value in state.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_two_processes_with_100_and_156_images_train_as_one_with_256(processes, dtype, tolerance):
    first, second, other = processes.ask(run_training, dtype)
    alone = descend(network(dtype, nn.BatchNorm2d), *images(dtype), slice(None), lambda gradient: None)
    start = network(dtype, nn.BatchNorm2d).state_dict()
    assert other == {}
    for name, expected in alone.items():
        assert not torch.equal(expected, start[name]), "training changes everything, or nothing is compared"
        assert (first[name] == second[name]).all()
        torch.testing.assert_close(torch.as_tensor(first[name]), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_without_other_processes_it_is_batch_norm(dim, training):
    ours, twin = nn.make_norm("sync", 3, dim).train(training), nn.make_norm("batch", 3, dim).train(training)
    x = torch.randn(5, 3, *[4] * (dim if dim > 1 else 0))
    assert torch.equal(ours(x), twin(x))
    for name, value in twin.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    ours.load_state_dict(twin.state_dict())
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x), twin(x))


def test_one_process_with_one_value_a_channel_is_refused_and_settings_are_checked(no_type_checks):
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        SyncBatchNorm1d(2)(torch.zeros(1, 2))
    with pytest.raises(NormlabError, match="eps >= 0"):
        SyncBatchNorm1d(2, eps=-1.0)
    with pytest.raises(NormlabError, match="weight of shape"):
        sync_batch_norm(torch.zeros(4, 2), weight=torch.ones(3))


def run_mistakes(rank):
    told = []
    for call in (
        lambda: sync_batch_norm(torch.zeros(4, 2), weight=torch.ones(3), training=True),
        lambda: sync_batch_norm(torch.zeros(4, 2), eps=-1.0, training=True),
        lambda: SyncBatchNorm2d(3)(torch.zeros(4, 3)),
    ):
        with pytest.raises(NormlabError) as error:
            call()
        told.append(str(error.value))
    return told


def test_mistakes_are_named_before_anybody_waits(processes):
    for told in processes.ask(run_mistakes):
        assert [text.split(",")[0] for text in told] == [
            "expected weight of shape (2",
            "expected eps >= 0",
            "expected 4D input (N",
        ]


def run_compiled(rank):
    layer = SyncBatchNorm2d(3, process_group=dist.new_group([0, 1, 2]))
    twin = copy.deepcopy(layer)
    assert twin.process_group is layer.process_group
    x = torch.randn(2 + rank, 3, 5, 5, generator=torch.Generator().manual_seed(rank), requires_grad=True)
    gradients = []
    for each in (torch.compile(layer, fullgraph=True, backend="aot_eager"), twin):
        gradients += torch.autograd.grad(each(x).pow(3).sum(), x)
    assert_close(*gradients)
    assert_close(layer.running_var, twin.running_var)
    functional = torch.func.grad(lambda x: sync_batch_norm(x, training=True)[0].pow(3).sum())(x.detach())
    assert_close(functional, gradients[0])


def test_processes_copy_compile_and_differentiate_it_as_torch_func_does(processes):
    assert processes.ask(run_compiled) == [None] * WORLD

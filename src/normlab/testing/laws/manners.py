"""What every layer owes to torch: dtypes, layouts, autocast, saving, copying, compiling, mapping."""

import copy
import io
import pickle
import warnings

import torch
from torch import Tensor, nn

from normlab.errors import one_line
from normlab.testing.compare import Broken, describe, pull_back, same, same_map
from normlab.testing.kinds import ALL, BY_ITSELF, RANDOM
from normlab.testing.law import law
from normlab.testing.subject import DoesNotApply, Subject, run, step

HALVES = (torch.bfloat16, torch.float16)


@law(
    "dtype y = dtype dh = dtype h; half types give what float32 gives",
    "16 u of the half type, times k",
    ALL - {"any", "weights"},
)
def dtypes_are_kept(subject: Subject) -> None:
    """Half precision goes in and out, and is computed with in float32."""
    for dtype in (subject.dtype, *HALVES):
        layer, exact = subject.make().to(dtype), subject.make().float().to(dtype).float()
        x = subject.draw().to(dtype)
        y = run(layer, x)
        if y.dtype != dtype:
            raise Broken("the dtype of y", describe([x]), str(dtype), str(y.dtype))
        if dtype == subject.dtype:
            continue
        within = 16 * torch.finfo(dtype).eps * subject.condition(x, layer) * _ranked(subject)
        same_map(
            "y in half precision",
            lambda x, layer=layer: run(layer, x).float(),
            lambda x, exact=exact: run(exact, x.float()),
            within,
            x,
        )


@law("y of channels-last h = y of contiguous h, in h's layout", "8 u k", ALL - RANDOM)
def memory_format_is_kept(subject: Subject) -> None:
    """A channels-last input gives the same values, and for images a channels-last output."""
    layer, x = subject.make(drawn=True), subject.draw(spatial=subject.spatial)
    if not subject.spatial:
        raise DoesNotApply("its input has no positions")
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    y = run(layer, last)
    if len(subject.spatial) == 2 and not y.is_contiguous(memory_format=torch.channels_last):
        raise Broken("the layout of y", describe([last]), "channels-last", f"strides {y.stride()}")
    within = 8 * subject.u * max(10.0, subject.condition(x, layer))
    same_map(
        "y of channels-last h",
        lambda x: run(layer, x.movedim(1, -1).contiguous().movedim(-1, 1)),
        lambda x: run(layer, x),
        within,
        x,
    )


@law("under autocast: dtype y is h's or autocast's, y as without", "4 u of bfloat16", ALL - {"weights"})
def autocast_changes_no_statistic(subject: Subject) -> None:
    """Under autocast the output is that without it, to the rounding of the narrower type."""
    if subject.dtype == torch.float64:
        raise DoesNotApply("autocast leaves float64 alone")
    layer, x = subject.make(), subject.draw()

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return run(layer, x)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = step(layer, x)
    if y.dtype not in (x.dtype, torch.bfloat16):
        raise Broken("the dtype of y under autocast", describe([x]), f"{x.dtype} or bfloat16", str(y.dtype))
    for name, value in layer.state_dict().items():
        if value.is_floating_point() and value.dtype != x.dtype:
            raise Broken(f"the dtype of {name} after autocast", describe([x]), str(x.dtype), str(value.dtype))
    within = 4 * torch.finfo(torch.bfloat16).eps
    same_map("y under autocast", lambda x: cast(x).to(x.dtype), lambda x: run(layer, x), within, x)


@law("h after = h before", "exact", ALL)
def inputs_are_left_alone(subject: Subject) -> None:
    """The input is not written to, in training or evaluation, and what is given back is not the input's memory."""
    for mode in (True, False):
        layer, x = subject.make(drawn=True).train(mode), subject.draw()
        before, g = x.clone(), torch.ones_like(x)
        leaf = x.requires_grad_()
        y = step(layer, leaf)
        if y.requires_grad:
            y.backward(g)
        same(f"h after a pass in {'training' if mode else 'evaluation'}", leaf, before, 0.0, before)
        same("the gradient that came in", g, torch.ones_like(g), 0.0, before)


@law("y after load_state_dict(state_dict) = y", "exact", ALL)
def state_dict_holds_the_state(subject: Subject) -> None:
    """A new layer with the saved state is the old one; loading it unpickles nothing."""
    layer = subject.trained()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = subject.make().eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    _same_state(subject, layer, other, "the layer that was loaded")


@law("y of a copy = y", "exact", ALL)
def copies_are_equal(subject: Subject) -> None:
    """Deep copies are the layer, after a backward pass too, and share nothing with it."""
    layer = subject.trained().train()
    y = step(layer, subject.draw().requires_grad_())
    if y.requires_grad:
        y.sum().backward()
    other = copy.deepcopy(layer)
    _same_state(subject, layer, other, "the copy")
    shared = {p.data_ptr() for p in layer.state_dict().values()} & {p.data_ptr() for p in other.state_dict().values()}
    if shared - {0}:
        raise Broken("memory of the copy", describe([subject.draw()]), "its own", "shared with the layer")


@law("y of what was pickled = y", "exact", ALL)
def pickles_are_equal(subject: Subject) -> None:
    """A layer goes through pickle, as to another process."""
    layer = subject.trained()
    try:
        other = pickle.loads(pickle.dumps(layer))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        if "<locals>" in type(layer).__qualname__:
            raise DoesNotApply("its class is local to a function") from error
        raise Broken("pickle", describe([subject.draw()]), "a layer", one_line(error)) from error
    _same_state(subject, layer, other, "the layer from the pickle")


@law("compiled y = y, in one graph", "1e-5 float32, 1e-12 float64, times k", ALL - RANDOM)
def compiles_in_one_graph(subject: Subject) -> None:
    """torch.compile takes the layer whole, in training and evaluation, and its statistics move the same."""
    for mode in (True, False):
        layer = subject.make(drawn=True).train(mode)
        twin = copy.deepcopy(layer)
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        x = subject.draw()
        within = subject.exact(1e-12, 1e-5) * subject.condition(x, layer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same_map("y compiled", compiled, twin, within, x)
        for name, value in twin.state_dict().items():
            same(f"{name} compiled", layer.state_dict()[name], value, within, x)


@law("vmap: y of a stack = stack of y, in evaluation", "8 u k", ALL)
def maps_in_evaluation(subject: Subject) -> None:
    """torch.func.vmap over a stack of batches is a loop over them, in evaluation."""
    layer = subject.trained()
    stack = torch.stack([subject.draw(seed=seed) for seed in range(3)])
    within = 8 * subject.u * subject.condition(stack.flatten(0, 1), layer)
    same_map("y of a stack", torch.func.vmap(layer), lambda s: torch.stack([layer(x) for x in s]), within, stack)


@law("N = 1, 2, 3, 257: y and dh are finite; N = 1 may be refused in training", "exact", ALL)
def every_batch_size_serves(subject: Subject) -> None:
    """Any number of examples serves, in training and evaluation."""
    for mode in (True, False):
        layer = subject.make(drawn=True).train(mode)
        for rows in (1, 2, 3, 257):
            x = subject.draw(rows=rows).requires_grad_()
            try:
                y = run(layer, x)
            except ValueError:
                if rows == 1 and mode and subject.kind not in BY_ITSELF:
                    continue
                raise
            (dx,) = torch.autograd.grad(y.sum(), x) if y.requires_grad else (torch.zeros_like(x),)
            if y.shape != x.shape or not bool(y.isfinite().all() & dx.isfinite().all()):
                raise Broken(
                    f"y and its gradient for {rows} examples", describe([x.detach()]), "finite", "inf or NaN"
                )


@law(
    "mask: y and statistics are those of h without what is masked; y and dh are 0 there", "exact, 8 u k", ALL - RANDOM
)
def masked_elements_have_no_way_in(subject: Subject) -> None:
    """Padding never enters a statistic or a gradient, NaN included."""
    x = subject.draw()
    mask = torch.rand(x.shape[0], 1, *x.shape[2:], generator=torch.Generator().manual_seed(1)) < 0.7
    mask.reshape(-1)[:2] = True
    first = torch.arange(x.shape[0]).reshape(-1, *[1] * (x.dim() - 1)) < 4
    try:
        run(subject.make(), x, mask)
    except TypeError as error:
        raise DoesNotApply("its forward takes no mask") from error
    for mode in (True, False):
        layer = subject.make(drawn=True).train(mode)
        twin = copy.deepcopy(layer)
        same_map(
            "y with NaN where the mask is False",
            lambda x, layer=layer: step(layer, torch.where(mask, x, torch.nan), mask),
            lambda x, twin=twin: torch.where(mask, step(twin, torch.where(mask, x, 7.0), mask), 0.0),
            0.0,
            x,
        )
        for name, value in twin.state_dict().items():
            same(f"{name} under a mask", layer.state_dict()[name], value, 0.0, x)
        _, (dx,) = pull_back(lambda x, twin=twin: run(twin, x, mask), [x])
        same("dh where the mask is False", torch.where(mask, 0, dx), torch.zeros_like(dx), 0.0, x)
        same_map(
            "y of the first four examples, the others masked",
            lambda x, twin=twin: run(twin, x, first)[:4],
            lambda x, twin=twin: run(twin, x[:4]),
            8 * subject.u * subject.condition(x, twin),
            x,
        )


def _same_state(subject: Subject, layer: nn.Module, other: nn.Module, what: str) -> None:
    """Broken unless both layers hold equal state and do the same in both modes."""
    x = subject.draw(seed=5)
    for name, value in layer.state_dict().items():
        same(f"{name} of {what}", other.state_dict()[name], value, 0.0, x)
    for mode in (True, False):
        layer.train(mode)
        other.train(mode)
        same_map(f"y of {what}", lambda x: run(other, x), lambda x: run(layer, x), 0.0, x)


def _ranked(subject: Subject) -> float:
    return 1.0 if subject.kind != "rank" else 4.0

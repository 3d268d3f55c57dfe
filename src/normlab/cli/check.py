"""normlab check: what is wrong with the normalization of a model."""

import itertools
import json as json_lines
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from normlab.cli.options import parse_options, parse_shape
from normlab.cli.tables import plain_console
from normlab.errors import NormlabError, choose, one_line

if TYPE_CHECKING:
    from torch import nn

    from normlab.measure.passes import Batch
    from normlab.rules import Diagnosis

SETTINGS = ("select", "ignore")
"""What [tool.normlab.check] of pyproject.toml may say."""
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32")
WORDS = 100
"""Whole numbers are drawn below it: tokens that any vocabulary has."""
BATCHES = 2
"""Of the data: one could be an exception."""
WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")
"""What `torch.compile` and DistributedDataParallel, either around the other, put before the names of a state."""
SHOWN = 8
"""Findings of a rule that are printed: a network of fifty norms has them fifty times."""


def check(
    model: str,
    *,
    model_options: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = (),
    weights: Path | None = None,
    batch: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = (),
    data: str | None = None,
    examples: int = 32,
    train: Annotated[bool, Parameter(negative="")] = False,
    select: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = (),
    ignore: Annotated[tuple[str, ...], Parameter(consume_multiple=(1, None), negative="")] = (),
    format: Literal["text", "json"] = "text",
) -> None:
    """Look for what is wrong with the normalization of a model, and say what mends it. Changes nothing.

    Exit code 1 if an error or a warning was found, 0 if not, 2 where the check itself could not be made.

    Args:
        model: your model as pkg.module:build, a callable that returns an nn.Module; or lenet, resnet8 ...
        model_options: options of that callable, as k=v.
        weights: a safetensors file with the model's state; the prefixes of `torch.compile` and
            DistributedDataParallel may be in it.
        batch: the shape of a batch of random numbers, as 32,3,224,224; with :int64 behind it, of small whole
            numbers. Several are the arguments of the model in their order.
        data: your data as pkg.module:callable, or fashion-mnist, digits, digits-8x8: two batches of its training set,
            to which running statistics are held more closely than to random numbers.
        examples: in a batch of the data, where it is no DataLoader.
        train: run a backward pass too, and ask the rules that need one.
        select: ask these rules alone: NL101, or NL1 for all that begin so.
        ignore: rules whose findings are no matter, each with the reason, as NL101=inherited.
        format: text, or json: one object.

    """
    from normlab.data import Examples, load
    from normlab.models import build
    from normlab.rules import check as diagnose

    settings = _settings(Path("pyproject.toml"))
    if batch and data is not None:
        raise NormlabError("--batch or --data", "both", "either is a batch to run")
    if examples < 1:
        raise NormlabError("--examples of at least 1", examples)
    found = None if data is None else load(data)
    # What our own models are made for; a user's is told nothing.
    shape = found.train.shape if found else parse_shape(batch[0].partition(":")[0], "--batch")[1:] if batch else ()
    built = build(
        model,
        parse_options(model_options),
        input_shape=shape or (1, 28, 28),
        classes=found.classes if found else 10,
        seed=0,
    )
    batches = [_batch(batch)] if batch else []
    if found is not None:
        drawn = found.train.batches(examples) if isinstance(found.train, Examples) else found.train.batches()
        batches = [x for x, _ in itertools.islice(drawn, BATCHES)]
    if weights is not None:
        _load_weights(built, weights)
    diagnosis = diagnose(
        built,
        batches or None,
        real=found is not None,
        train=train,
        select=select or settings.get("select"),
        ignore=(*settings.get("ignore", ()), *ignore),
    )
    if format == "json":
        print(json_lines.dumps({"model": model, **diagnosis.to_plain()}))
    else:
        _print(diagnosis)
    if diagnosis:
        raise SystemExit(1)


def _settings(path: Path) -> dict[str, list[str]]:
    """[tool.normlab.check] of a pyproject.toml, if there is one; NormlabError on what it may not say."""
    if not path.is_file():
        return {}
    try:
        said: Any = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NormlabError(f"{path} as TOML", one_line(error)) from error
    for name in ("tool", "normlab", "check"):
        said = said.get(name, {})
        if not isinstance(said, dict):
            raise NormlabError(f"{name} in {path} as a table", repr(said), "settings go into [tool.normlab.check]")
    for name, value in said.items():
        choose(dict.fromkeys(SETTINGS), name, "setting in [tool.normlab.check]")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise NormlabError(f"{name} in [tool.normlab.check] as a list of strings", repr(value))
    return said


def _batch(shapes: tuple[str, ...]) -> "Batch":
    """Random numbers of these shapes, the same every time: one tensor, or the arguments of a model."""
    import torch

    generator = torch.Generator().manual_seed(0)
    made = []
    for each in shapes:
        text, _, dtype = each.partition(":")
        shape = parse_shape(text, "--batch")
        kind = choose({name: getattr(torch, name) for name in DTYPES}, dtype or "float32", "dtype of --batch")
        if kind.is_floating_point:
            made.append(torch.randn(shape, generator=generator).to(kind))
        else:
            made.append(torch.randint(WORDS, shape, generator=generator, dtype=kind))
    return made[0] if len(made) == 1 else tuple(made)


def _load_weights(model: "nn.Module", path: Path) -> None:
    import safetensors.torch
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present as without

    if not path.is_file():
        raise NormlabError("--weights as a safetensors file", f"no file {path}")
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:  # what the reader raises on a damaged file is not documented
        do = "save it with safetensors.torch.save_file: nothing is unpickled here"
        raise NormlabError(f"{path} as a safetensors file", one_line(error), do) from error
    for prefix in WRAPPERS:
        if not any(name.startswith(prefix) for name in model.state_dict()):
            without(state, prefix)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise NormlabError(f"the weights of this model in {path}", " ".join(str(error).split())) from error


def _print(diagnosis: "Diagnosis") -> None:
    console = plain_console()
    for rule, group in itertools.groupby(diagnosis.findings, key=lambda finding: finding.rule):
        console.print(f"{rule.id} {rule.severity}: {rule.title}")
        found = [*group]
        # One more would take the line that says so.
        shown = found if len(found) <= SHOWN + 1 else found[:SHOWN]
        for finding in shown:
            console.print(f"    {finding.path or 'the model'}: {finding.message}")
        if more := len(found) - len(shown):
            console.print(f"    and {more} more alike; --format json lists them")
        console.print(f"    mend: {rule.remedy}")
    counted = Counter(finding.rule.severity for finding in diagnosis.findings)
    told = ", ".join(f"{counted[each]} {each}{'s' * (counted[each] != 1)}" for each in ("error", "warning", "note"))
    console.print(f"{told}; normlab explain ID tells more." if diagnosis.findings else "nothing found")
    for name, reason in diagnosis.ignored.items():
        console.print(f"ignored: {name} ({reason})")
    for why, names in _by_reason(diagnosis.unasked).items():
        console.print(f"not asked: {', '.join(names)} ({why})")


def _by_reason(unasked: "dict[str, str]") -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in unasked.items():
        reasons.setdefault(reason, []).append(name)
    return reasons

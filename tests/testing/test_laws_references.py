"""Correct layers pass every law: the small ones made for it, ours, and torch's where they keep it."""

import functools
import subprocess
import sys

import norm_references
import pytest
import torch

from normlab import nn
from normlab.testing import KINDS, all_laws, check_norm, examine
from normlab.testing.check import PRECISIONS, judge
from normlab.testing.subject import subject

REFERENCES = {
    name: layer
    for name, layer in vars(norm_references).items()
    if isinstance(layer, type) and issubclass(layer, torch.nn.Module) and "kind" in vars(layer)
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_correct_layer_passes_every_law(name, no_type_checks):
    check_norm(REFERENCES[name])


def test_every_kind_has_a_correct_layer_and_every_law_a_kind():
    assert {layer.kind for layer in REFERENCES.values()} == set(KINDS)
    assert len(all_laws()) >= 30
    for law in all_laws():
        assert law.kinds <= set(KINDS)
        assert law.kinds
        assert law.statement
        assert law.formula
    names = [law.name for law in all_laws()]
    assert len(set(names)) == len(names)


OURS = [name for name in nn.norm_names() if name != "none"]
COMPILES = "compiles-in-one-graph"


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", OURS)
def test_our_layers_pass_every_law(name, dim, no_type_checks):
    """But for compiling, which is asked below: the checks of types here stand between compiler and layer."""
    layer = nn.find_norm(name)[dim]
    findings = [
        judge(law, subject(layer, layer.kind, dtype))
        for law in all_laws()
        if law.name != COMPILES
        for dtype in PRECISIONS.values()
    ]
    assert [str(finding) for finding in findings if finding.outcome == "fail"] == []
    assert len([finding for finding in findings if finding.outcome == "pass"]) >= 30


def test_our_layers_compile():
    script = f"""
import torch
from normlab import nn
from normlab.testing import all_laws
from normlab.testing.check import judge
from normlab.testing.subject import subject
(law,) = [law for law in all_laws() if law.name == {COMPILES!r}]
for name in {OURS}:
    layer = nn.find_norm(name)[2]
    finding = judge(law, subject(layer, layer.kind, torch.float32))
    assert finding.outcome == ("pass" if layer.kind in law.kinds else "does not apply"), (name, str(finding))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


TORCHS = {
    "batch": (torch.nn.BatchNorm2d, "batch", {"nonfinite-batches-are-left-out"}),
    "group": (functools.partial(torch.nn.GroupNorm, 2), "group", set()),
    "layer": (functools.partial(torch.nn.GroupNorm, 1), "layer", set()),
    "layer of (N, C)": (torch.nn.LayerNorm, "layer", set()),
    "instance": (torch.nn.InstanceNorm2d, "instance", {"memory-format-is-kept"}),
    "rms of (N, C)": (torch.nn.RMSNorm, "rms", set()),
}


@pytest.mark.parametrize("name", TORCHS)
def test_torchs_layers_pass_but_for_what_is_known(name):
    factory, kind, known = TORCHS[name]
    broken = {finding.law.name: str(finding) for finding in examine(factory, kind) if finding.outcome == "fail"}
    assert set(broken) == known, broken

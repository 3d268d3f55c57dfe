"""check: every rule asked of a model, which is afterwards as before."""

import contextlib
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from normlab.errors import NormlabError
from normlab.measure.passes import Batch
from normlab.rules.diagnosis import Diagnosis, Finding
from normlab.rules.facts import Facts, Given, Unknown
from normlab.rules.rule import all_rules, chosen, reasoned
from normlab.surgery.untouched import untouched

_SEVERITIES = ("error", "warning", "note")


def check(
    model: nn.Module,
    batch: Batch | list[Batch] | None = None,
    *,
    real: bool = False,
    train: bool = False,
    optimizer: Optimizer | None = None,
    select: str | Iterable[str] | None = None,
    ignore: str | Iterable[str] = (),
) -> Diagnosis:
    """Look for what is wrong with a model's normalization. Changes nothing.

    Args:
        model: any nn.Module; its modes, tensors, gradients, hooks and random numbers are as before afterwards.
        batch: what the model is called with: a tensor, a tuple of arguments, a dict of arguments by name; or a list
            of several such batches. Without one only the rules are asked that look at the model as it stands.
        real: the batches are of the data that the model was trained on, prepared as they were then: running
            statistics are held to them closely, where random numbers tell little.
        train: run a backward pass too, and ask the rules that need one.
        optimizer: that of the training, if its settings are to be looked at.
        select: ask these rules alone: ids as NL101, or the beginnings of several, as NL1.
        ignore: rules whose findings are no matter, each as `ID=reason`.

    Raises:
        NormlabError: an unknown rule, an ignored one without a reason, or a model that cannot take the batch.

    """
    if not isinstance(model, nn.Module):
        raise NormlabError("an nn.Module to check", f"a {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise NormlabError("the modules of a model", "a ScriptModule, which hides them", "check it before scripting")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise NormlabError("the optimizer of the training", f"{optimizer!r:.60}", "as torch.optim.SGD(...) makes it")
    reasons = reasoned(ignore)
    asked = chosen(select) if select is not None else set(all_rules())
    batches = () if batch is None else batch if isinstance(batch, list) else [batch]
    facts = Facts(Given(model, batches, train, optimizer, real))
    findings: list[Finding] = []
    ignored: dict[str, str] = {}
    unasked: dict[str, str] = {}
    with untouched(model):  # a trace of the data flow runs Python of the model's, too
        with contextlib.suppress(Unknown):
            failure = facts.ask(lambda evaluation: evaluation.failure)
            if failure is not None:
                raise NormlabError("a model that takes the batch", failure, "give one that its forward takes")
        for name, rule in all_rules().items():
            if name not in asked:
                continue
            try:
                found = [Finding(rule, path, message) for path, message in facts.ask(rule.check)]
            except Unknown as reason:
                unasked[name] = str(reason)
                continue
            if found and name in reasons:
                ignored[name] = reasons[name]
            else:
                findings += found
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.rule.severity))
    return Diagnosis(model, findings, ignored, unasked, facts)

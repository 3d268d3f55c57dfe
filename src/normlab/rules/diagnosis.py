"""A diagnosis: what was found, what was not asked and why, and the way to mend it."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from normlab.errors import NormlabError
from normlab.rules.facts import Facts, Unknown
from normlab.rules.rule import Rule, all_rules, chosen
from normlab.surgery import Changes, recalibrate
from normlab.surgery.feed import Batches
from normlab.surgery.find import batch_norms, keeps_statistics
from normlab.surgery.untouched import untouched


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong at one place."""

    rule: Rule
    path: str
    """Of the module; "" for the model itself."""
    message: str

    def __str__(self) -> str:
        return f"{self.rule.id} {self.rule.severity} {self.path or 'the model'}: {self.message}"


@dataclasses.dataclass
class Diagnosis:
    """What `check` found. Truthy if it found anything but notes."""

    model: nn.Module
    findings: list[Finding]
    """Errors first, then warnings, then notes; each in the order of the rules."""
    ignored: dict[str, str]
    """Rule id to the reason it was given, of those that would have found something."""
    unasked: dict[str, str]
    """Rule id to why it could not be asked."""
    _facts: Facts = dataclasses.field(repr=False)

    def __bool__(self) -> bool:
        return any(finding.rule.severity != "note" for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing found"

    @property
    def found(self) -> dict[str, list[str]]:
        """Rule id to the paths found."""
        paths: dict[str, list[str]] = {}
        for finding in self.findings:
            paths.setdefault(finding.rule.id, []).append(finding.path)
        return paths

    def fix(self, data: Batches | None = None, *, select: str | Iterable[str] | None = None) -> Changes:
        """Mend what a surgery can mend, in place: what was done, what was left and why, with undo.

        On an error the model is as before.

        Args:
            data: training data as `normlab.surgery.recalibrate` takes it, a loader or a list of batches. With it
                the running statistics that are wrong, or that a mended layer leaves wrong, are recomputed at the end.
            select: mend what these rules found alone: ids as NL101, or the beginnings of several, as NL2.

        Raises:
            NormlabError: an unknown rule, or a model in DistributedDataParallel, which knows the parameters that it
                was built with.

        """
        if isinstance(self.model, DistributedDataParallel):
            raise NormlabError("a model to mend", "one in DistributedDataParallel", "mend its module, then wrap it")
        meant = chosen(select) if select is not None else set(all_rules())
        found = {name: paths for name, paths in self.found.items() if name in meant}
        changes = Changes()
        with changes.or_nothing():
            facts = self._facts
            for name, paths in found.items():
                still = self._still(name, paths, facts)
                made = self._mended(all_rules()[name], still, facts)
                changes._undo.append(made.undo)
                changes.done |= {f"{name} {path}".strip(): "no longer found" for path in paths if path not in still}
                changes.done |= {f"{name} {path}".strip(): what for path, what in made.done.items()}
                changes.left |= {f"{name} {path}".strip(): why for path, why in made.left.items() if path in paths}
                if made:  # what was known of the model is known no more
                    facts = Facts(facts.given)
            self._recalibrate(found, data, changes)
        return changes

    def _still(self, name: str, paths: list[str], facts: Facts) -> list[str]:
        """Those of the paths where the rule finds something, as the model is now."""
        rule = all_rules()[name]
        if facts is self._facts or rule.mend is None:
            return paths
        try:
            with untouched(self.model):
                found = {path for path, _ in facts.ask(rule.check)}
        except Unknown:
            return paths
        return [path for path in paths if path in found]

    def _mended(self, rule: Rule, paths: list[str], facts: Facts) -> Changes:
        if rule.mend is None:
            return Changes(left={} if rule.recalibrates else dict.fromkeys(paths, rule.remedy))
        try:
            return facts.ask(functools.partial(rule.mend, paths))(self.model)
        except Unknown as reason:
            return Changes(left=dict.fromkeys(paths, str(reason)))

    def _recalibrate(self, found: dict[str, list[str]], data: Batches | None, changes: Changes) -> None:
        """Once for all that need it, after everything else."""
        stale = {
            f"{name} {path}": path
            for name, paths in found.items()
            for path in paths
            if all_rules()[name].recalibrates
        }
        kept = any(map(keeps_statistics, batch_norms(self.model).values()))
        made = recalibrate(self.model, data) if stale and kept and data is not None else Changes()
        changes._undo.append(made.undo)
        for place, path in stale.items():
            if kept and data is None:
                changes.left[place] = "running statistics need training data: fix(data)"
            elif path in made.left:
                changes.left[place] = made.left[path]
            elif made:
                done = "running statistics recomputed"
                changes.done[place] = f"{changes.done[place]}; {done}" if place in changes.done else done
            elif place not in changes.done:
                changes.left[place] = "no batch norm keeps running statistics"

    def to_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "findings": [
                {
                    "id": each.rule.id,
                    "severity": each.rule.severity,
                    "path": each.path,
                    "message": each.message,
                    "remedy": each.rule.remedy,
                    "mendable": each.rule.mend is not None or each.rule.recalibrates,
                }
                for each in self.findings
            ],
            "ignored": self.ignored,
            "unasked": self.unasked,
        }

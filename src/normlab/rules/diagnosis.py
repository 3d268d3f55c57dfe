"""A diagnosis: what was found, what was not asked and why, and the way to mend it."""

import dataclasses
from typing import Any

from torch import nn

from normlab.rules.rule import Rule, all_rules
from normlab.surgery import Changes


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

    def fix(self) -> Changes:
        """Mend what a surgery can mend, in place: what was done, what was left and why, with undo.

        On an error the model is as before.
        """
        changes = Changes()
        try:
            for name, paths in self.found.items():
                rule = all_rules()[name]
                if rule.mend is None:
                    changes.left |= {f"{name} {path}".strip(): rule.remedy for path in paths}
                    continue
                done = rule.mend(paths)(self.model)
                for path, what in done.done.items():
                    changes.done[f"{name} {path}".strip()] = what
                changes.left |= {f"{name} {path}".strip(): why for path, why in done.left.items() if path in paths}
                changes._undo.append(done.undo)
        except BaseException:
            changes.undo()
            raise
        return changes

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
                    "mendable": each.rule.mend is not None,
                }
                for each in self.findings
            ],
            "ignored": self.ignored,
            "unasked": self.unasked,
        }

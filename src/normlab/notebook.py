"""Studies in a notebook, or wherever Python is: `normlab.study("bias").run(size="quick")`."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

from normlab import studies
from normlab.errors import NormlabError
from normlab.lab.ask import ask, command, rehearse
from normlab.lab.cell import Trial
from normlab.lab.executor import cores, local
from normlab.lab.run import Watcher, run
from normlab.lab.study import Study
from normlab.report.output import html
from normlab.report.text import lines
from normlab.store import Record, Runs, Verdict


@dataclasses.dataclass(frozen=True)
class Answer:
    """A verdict that shows itself: `print` it, or let a cell of a notebook end with it."""

    verdict: Verdict

    def __str__(self) -> str:
        return "\n".join(lines(self.verdict))

    def __repr__(self) -> str:
        return f"{self.verdict.word}: {self.verdict.sentence}"

    def _repr_html_(self) -> str:
        return html(self.verdict)


@dataclasses.dataclass(frozen=True)
class Question:
    """A study that can be run."""

    name: str
    study: Study

    def __repr__(self) -> str:
        return (
            f"study {self.name}: {self.study.question} Claim: {self.study.claim} Sizes: {', '.join(self.study.sizes)}"
        )

    def run(
        self,
        size: str = "quick",
        *,
        seeds: int | None = None,
        model: str | None = None,
        model_options: Mapping[str, object] | None = None,
        data: str | None = None,
        norm: str | None = None,
        workers: int | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> Answer:
        """The answer; of its trials only those are run that the store lacks, and an interruption keeps what is done.

        `model`, `data` and `norm` are names, or your own as pkg.module:callable: worker processes import them, so
        they stand in a file, not in a cell. `store` is a runs.db; by default that in NORMLAB_HOME.

        Raises NormlabError where something of this is not there, or does not fit.
        """
        for name, value in {"model": model, "data": data, "norm": norm}.items():
            if value is not None and not isinstance(value, str):
                got = f"a {type(value).__name__}"
                raise NormlabError(
                    f"{name} by name, or as 'pkg.module:callable'", got, "put it into a file of its own"
                )
        for name, count in {"seeds": seeds, "workers": workers}.items():
            if count is not None and count < 1:
                raise NormlabError(f"{name} of at least 1", count)
        options = None if model_options is None else dict(model_options)
        how: dict[str, Any] = {
            "seeds": seeds, "model": model, "model_options": options, "data_name": data, "norm": norm
        }  # fmt: skip
        asked = ask(self.name, self.study, size=size, command=command(self.name, size, how), **how)
        rehearse(asked)
        count = workers or cores()
        with _Bar() as bar:
            (verdict,) = run([asked], Runs(store), local(count), count, watcher=bar)
        return Answer(verdict)


def study(name: str) -> Question:
    """A built-in study by name, or that of a file with a STUDY; NormlabError, with all names, if there is none."""
    return Question(name, studies.find(name))


class _Bar(Watcher):
    """Trials done of those that are wanted so far: as a widget in a notebook that has them, else as text."""

    def __enter__(self) -> "_Bar":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a notebook has no widgets
            from tqdm.auto import tqdm

            self.bar = tqdm(total=0, desc="trials", unit="trial", leave=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def wanted(self, trials: Mapping[str, Trial]) -> None:
        self.bar.total += len(trials)
        self.bar.refresh()

    def finished(self, trial: str, result: Record | str) -> None:
        self.bar.update()
        if isinstance(result, str):
            self.bar.write(f"trial {trial} failed: {result}")

"""The command line: parse, call, print. Commands are imported when they are called; torch with them."""

import sys
from collections.abc import Sequence

import cyclopts

from normlab import __version__
from normlab.errors import NormlabError, one_line

app = cyclopts.App(
    name="normlab",
    help="Batch normalization, measured.",
    help_epilogue="--debug shows the traceback of an error. "
    "Results lie in NORMLAB_HOME, else in the platform's data folder.",
    version=__version__,
    help_format="plaintext",
)
app.command(
    "normlab.cli.train:train",
    name="train",
    help="Train a network; bare, the thread's run: BN-LeNet on Fashion-MNIST.",
)
app.command("normlab.cli.data:data", name="data", help="Fetch and verify data sets; bare, list them.")
app.command("normlab.cli.runs:runs", name="runs", help="List, show and export what was trained.")
app.command("normlab.cli.doctor:doctor", name="doctor", help="Say what works here, what is missing, and what to do.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 a mistake told in one line, 130 / 143 interrupted."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has gone: `normlab runs list | head`. Nothing more can be printed.
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _fail(_explain(error), 2)


def _explain(error: Exception) -> str:
    """One line: what was expected, what came, what to do."""
    if isinstance(error, NormlabError):
        return str(error)
    if isinstance(error, cyclopts.CycloptsError):
        return _explain_usage(error)
    if isinstance(error, OSError):
        return one_line(error)
    return f"this is a bug of normlab: {one_line(error)}; please report it with what --debug shows"


def _explain_usage(error: cyclopts.CycloptsError) -> str:
    import pydantic

    if isinstance(error.__cause__, pydantic.ValidationError):
        problems = (
            f"--{'-'.join(map(str, problem['loc'])).replace('_', '-')}: {problem['msg'].lower()}, "
            f"got {problem['input']!r}"
            for problem in error.__cause__.errors()
        )
        return "; ".join(problems)
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> None:
    print(f"normlab: {message}", file=sys.stderr)
    sys.exit(code)

"""The command line: parse, call, print. Commands are imported when they are called; torch with them."""

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import cyclopts

from normlab import __version__
from normlab.cli.signals import Ended, interruptible
from normlab.errors import NormlabError, one_line

if TYPE_CHECKING:
    import pydantic

app = cyclopts.App(
    name="normlab",
    help="Batch normalization, measured.",
    help_epilogue="--debug shows the traceback of an error. "
    "Results lie in NORMLAB_HOME, else in the platform's data folder.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.command(
    "normlab.cli.train:train",
    name="train",
    help="Train a network; bare, the thread's run: BN-LeNet on Fashion-MNIST.",
)
app.command(
    "normlab.cli.study:study", name="study", help="Ask what normalization does, and get an answer with error bars."
)
app.command(
    "normlab.cli.compare:compare",
    name="compare",
    help="Compare two norms, models or recipes: which is better, and how sure that is.",
)
app.command(
    "normlab.cli.check:check",
    name="check",
    help="Look for what is wrong with the normalization of a model, and say what mends it.",
)
app.command(
    "normlab.cli.measure:measure",
    name="measure",
    help="Ask a network how its signals, its gradients and its loss behave.",
)
app.command(
    "normlab.cli.explain:explain",
    name="explain",
    help="Explain a norm or a word, with a picture; bare, list the topics.",
)
app.command("normlab.cli.data:data", name="data", help="Fetch and verify data sets; bare, list them.")
app.command("normlab.cli.runs:runs", name="runs", help="List, show, export, import and prune what was trained.")
app.command("normlab.cli.laws:laws", name="laws", help="Put a normalization before the laws it must satisfy.")
app.command("normlab.cli.bench:bench", name="bench", help="Measure speed on this machine, against other libraries.")
app.command("normlab.cli.doctor:doctor", name="doctor", help="Say what works here, what is missing, and what to do.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 a mistake told in one line, 130 / 143 interrupted."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        with interruptible(), _output():
            app(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt as interrupt:
        _fail("interrupted", interrupt.exit_code if isinstance(interrupt, Ended) else 130)
    except BrokenPipeError:
        sys.exit(0)  # whoever read our output has gone: `normlab runs list | head`
    except Exception as error:
        if debug:
            traceback.print_exc()
        _fail(_explain(error), 2)


@contextlib.contextmanager
def _output() -> Iterator[None]:
    """Standard output that takes any text, and tells here, not at the end of Python, that it cannot be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks is no reason to lose a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            print(end="", flush=True)
        except OSError:
            # Or Python would try again at its end.
            sys.stdout = None  # type: ignore[assignment]
            raise


def _explain(error: Exception) -> str:
    """What was expected, what came, what to do."""
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
        return "; ".join(_problems(error.__cause__))
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return str(NormlabError("options as --name value", " ".join(error.unused_tokens or ()), "see --help"))
    return str(error)


def _problems(error: "pydantic.ValidationError") -> Iterator[str]:
    """Each wrong field under the name of its option: expected --lr to be greater than 0, got '-1'."""
    for problem in error.errors():
        option = str(problem["loc"][0]).replace("_", "-")
        wanted = problem["msg"].partition(" should ")[2].partition(", unable to")[0]
        yield str(NormlabError(f"--{option} to {wanted}", repr(problem["input"])))


def _fail(message: str, code: int) -> NoReturn:
    print(f"normlab: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)

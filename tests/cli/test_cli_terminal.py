"""What a person sees: commands in a real terminal, a pseudo one of a given width."""

import os
import re
import subprocess
import sys

import pytest

import records
from normlab.store import Runs

pty = pytest.importorskip("pty", reason="Windows has no pseudo terminals")


def in_terminal(columns, *arguments):
    """Exit code, and all that a terminal of that width was sent."""
    fcntl, struct, termios = (__import__(name) for name in ("fcntl", "struct", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "normlab", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end has gone
            break
        if not part:
            break
        sent += part
    os.close(ours)
    return process.wait(timeout=60), sent.decode()


def plain(sent):
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_of_a_run(columns):
    slowly = ("--batch-size", 32, "--epochs", 2, "--threads", 1, "--no-lanes")
    code, sent = in_terminal(columns, "train", "--data", "digits", *slowly)
    assert code == 0
    lines = [line for line in re.split(r"[\r\n]+", plain(sent)) if line]
    bars = [line for line in lines if line.endswith(" left")]
    full = r"epoch [12]/2 [━╸╺]+ +loss \d\.\d{3}, acc \d\.\d{3}, \d+ examples/sec +(\d\d:\d\d|--:--) left"
    assert [bar for bar in bars if re.fullmatch(full, bar)], bars[-3:]
    assert {len(bar) for bar in bars} <= {columns, columns - 1}
    assert not any("…" in bar for bar in bars)
    assert sum(bool(re.match(r"epoch [12]/2: loss \d\.\d{3}, train acc", line)) for line in lines) == 2
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l"), "the cursor is back"
    assert re.fullmatch(r"loss \d\.\d{3}, train acc .* examples/sec on cpu", lines[-1])


@pytest.fixture
def filled():
    Runs().add(records.record(trial="a" * 16, data="[red]my.package[/]:größe", model="users:model"))
    Runs().add(records.record(trial="b" * 16))


def test_runs_as_a_table(filled):
    code, sent = in_terminal(80, "runs", "list")
    shown = plain(sent).replace("\r", "")
    assert code == 0
    assert "\t" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "aaaaaaaa  " in shown
    assert shown.count("aaaaaaaa") == 1, "digits enough to name a run"
    assert "─" * 80 in shown
    [header] = [line for line in shown.splitlines() if line.startswith("trial")]
    cells = [line[header.index("data") : header.index("lr")].strip() for line in shown.splitlines()]
    assert "[red]my.package[/]:größe" in "".join(cells), "wrapped, and no markup"


def test_a_terminal_too_narrow_for_a_table_gets_lines(filled):
    code, sent = in_terminal(60, "runs", "list")
    assert code == 0
    assert "bbbbbbbb\tlenet\tfashion-mnist\t" in sent


@pytest.mark.parametrize(("columns", "panels"), [(80, 2), (40, 1)])
def test_explanations_and_their_pictures_fit(columns, panels):
    code, sent = in_terminal(columns, "explain", "batch")
    lines = plain(sent).replace("\r", "").splitlines()
    assert code == 0
    assert max(map(len, lines)) in range(columns - 8, columns + 1)
    assert sum(line.count("correlation") for line in lines) == 2
    assert max(line.count("correlation") for line in lines) == panels


def test_an_error_is_one_line_there_too():
    code, sent = in_terminal(40, "train", "--lr", "-1")
    assert code == 2
    assert sent.replace("\r", "") == "normlab: expected --lr to be greater than 0, got '-1'\n"

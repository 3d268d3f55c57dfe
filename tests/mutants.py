"""Change every arithmetic operator of the given sources, one at a time, and see that a test fails.

    python tests/mutants.py SOURCE.py ... -- TEST ...

Each mutant lives in a copy of the package of its own. Exits with 1, naming them, if any survives.
"""

import ast
import concurrent.futures
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.USub: ast.UAdd,
    ast.Invert: ast.UAdd,
}
SECONDS = 600
SOURCES = Path("src")


def operators(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node with an operator to swap; `int | None` in an annotation is no arithmetic."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from operators(child)
    if isinstance(tree, ast.BinOp | ast.UnaryOp | ast.AugAssign) and type(tree.op) in SWAPS:
        yield tree


def mutants(source: Path) -> Iterator[tuple[str, str]]:
    """A description and the whole text of every mutant of a file."""
    tree = ast.parse(source.read_text())
    for number, node in enumerate(operators(tree)):
        changed = copy.deepcopy(tree)
        twin = list(operators(changed))[number]
        twin.op = SWAPS[type(twin.op)]()
        yield f"{source}:{node.lineno}: {ast.unparse(node)}  ->  {ast.unparse(twin)}", ast.unparse(changed)


def survives(source: Path, text: str, tests: list[str]) -> bool:
    """Whether the tests pass with `text` in the place of `source`."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(SOURCES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder, source.relative_to(SOURCES)).write_text(text)
        command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:  # a mutant that hangs has been noticed
            return False
    if done.returncode not in (0, 1):  # 1: a test failed; anything else judges nothing
        sys.exit(f"the tests did not run: {done.stdout}{done.stderr}")
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    sources, tests = [Path(name) for name in arguments[:split]], arguments[split + 1 :]
    if not survives(sources[0], sources[0].read_text(), tests):
        sys.exit("the tests fail without any change")
    cases = [(source, *mutant) for source in sources for mutant in mutants(source)]
    alive = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = [pool.submit(survives, source, text, tests) for source, _, text in cases]
        for (_, description, _), verdict in zip(cases, verdicts, strict=True):
            outcome = "SURVIVED" if verdict.result() else "killed"
            print(f"{outcome:8} {description}", flush=True)
            alive += [description] * verdict.result()
    print(f"{len(cases) - len(alive)} of {len(cases)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

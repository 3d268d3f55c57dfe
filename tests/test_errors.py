import sys
from pathlib import Path

import pytest

from normlab.errors import NormlabError, bind, choose, load, one_line


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of the user's; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def test_message_in_its_parts():
    assert str(NormlabError("a", "b", "c")) == "expected a, got b; c"
    assert str(NormlabError("a", 3)) == "expected a, got 3"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError("\n\n first \r second"), "ValueError: first "),
        (ValueError(), "ValueError"),
        (KeyError("key"), "KeyError: 'key'"),
    ],
)
def test_one_line_of_a_strangers_error(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize("name", ["lenett", "LENET", "", 3, None, ["lenet"]])
def test_choose_lists_what_there_is(name):
    with pytest.raises(NormlabError, match=r"^expected a known model, got .*there are lenet, mlp$"):
        choose({"lenet": 1, "mlp": 2}, name, "model")


def test_choose_names_the_nearest():
    with pytest.raises(NormlabError, match=r"did you mean lenet\?.*or your own as pkg.module:callable$"):
        choose({"lenet": 1, "mlp": 2}, "lenett", "model", own=True)


def test_bind_names_the_nearest_option_and_the_missing_ones():
    def function(width, *, depth=1): ...

    bind(function, {"width": 3, "depth": 2}, "it")
    with pytest.raises(NormlabError, match=r"option of it, got 'dept'; did you mean depth\?"):
        bind(function, {"width": 3, "dept": 2}, "it")
    with pytest.raises(NormlabError, match="got none for width; give them as k=v"):
        bind(function, {}, "it")
    bind(lambda **options: options, {"anything": 3}, "it")
    bind(dict, {"anything": 3}, "it")  # tells nothing of its parameters


def test_load_from_the_working_directory(here):
    Path("errors_users_own.py").write_text(
        "import errors_helper\nclass A:\n    @staticmethod\n    def make(): return 3\n"
    )
    Path("errors_helper.py").write_text("")
    before = [*sys.path]
    assert load("errors_users_own:A.make", "a thing")() == 3
    assert sys.path == [*before, str(here)], "found at call time too, and shadowing nothing"
    assert load("errors_users_own:A.make", "a thing")() == 3
    assert sys.path == [*before, str(here)], "once"


def test_the_working_directory_comes_before_what_is_installed_while_it_is_imported(here):
    Path("colorsys.py").write_text("def build(): return 'the user\\'s'\n")
    sys.modules.pop("colorsys", None)
    assert load("colorsys:build", "a model")() == "the user's"


MODULES = {
    "errors_needs_more.py": "import errors_not_there\n",
    "errors_pre.py": "import errors_p\n",
    "errors_syntax.py": "def f(:\n",
    "errors_raises.py": "raise RuntimeError('first\\nsecond')\n",
    "errors_exits.py": "import sys\nsys.exit(3)\n",
    "errors_thing.py": "thing = 3\ndef build(): ...\n" + "\n".join(f"def more{i}(): ..." for i in range(40)),
    "errors_empty.py": "import sys as _sys\nthing = 3\n",
}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("errors_nowhere:build", "no module named 'errors_nowhere'; run from the folder that holds it"),
        ("errors_thing.sub:build", "no module named 'errors_thing.sub'"),
        ("errors_needs_more:build", "No module named 'errors_not_there'; install what it needs"),
        ("errors_pre:build", "No module named 'errors_p'; install what it needs"),
        ("errors_syntax:build", "SyntaxError: invalid syntax .*; mend the module"),
        ("errors_raises:build", "got RuntimeError: first; mend the module"),
        ("errors_exits:build", "got SystemExit: 3; mend the module"),
        ("errors_thing:thing", "expected a callable as a model, got errors_thing:thing, which is a int"),
        ("errors_thing:buld", r"no such name in .*errors_thing.py; did you mean build\?"),
        ("errors_thing:zzz", r"it has build, more0, more1(, \w+){9}, [.]{3}$"),
        ("errors_thing:thing.x", "'thing.x' in errors_thing, got no such name"),
        ("errors_empty:zzz", "it has nothing that can be called"),
        ("errors_thing:", "as pkg.module:callable, got 'errors_thing:'"),
        (":build", "as pkg.module:callable, got ':build'"),
        ("errors_thing.py:build", "name the module, not its file"),
        ("./errors_thing:build", "name the module, not its file"),
        ("folder/errors_thing:build", "name the module, not its file"),
        ("folder\\errors_thing:build", "name the module, not its file"),
        (".errors_thing:build", "name the module, not its file"),
    ],
)
def test_load_says_what_is_wrong(here, reference, message):
    for name, text in MODULES.items():
        (here / name).write_text(text)
    with pytest.raises(NormlabError, match=message) as raised:
        load(reference, "a model")
    assert len(str(raised.value).splitlines()) == 1

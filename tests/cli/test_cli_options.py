import pytest

from normlab.cli.options import parse_options
from normlab.errors import NormlabError


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("k=3", 3),
        ("k=1e-3", 1e-3),
        ("k=true", True),
        ("k=null", None),
        ("k=[1,3]", [1, 3]),
        ('k={"a": 1}', {"a": 1}),
        ("k=relu", "relu"),
        ('k="3"', "3"),
        ("k=", ""),
        ("k=a=b", "a=b"),
        ("k=True", "True"),
        ("k=ü", "ü"),
    ],
)
def test_a_value_is_json_where_it_is(pair, value):
    assert parse_options([pair]) == {"k": value}
    assert type(parse_options([pair])["k"]) is type(value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["eps"], "an option as k=v, got 'eps'"),
        (["=3"], "an option as k=v, got '=3'"),
        (["a=1", "b=2", "a=1"], "each option once, got a twice"),
    ],
)
def test_what_is_no_pair(pairs, message):
    with pytest.raises(NormlabError, match=message):
        parse_options(pairs)

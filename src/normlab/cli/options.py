"""Options as text: those of models and layers as k=v, and shapes."""

import json
from collections.abc import Iterable
from typing import Any

from normlab.errors import NormlabError


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """{"k": v}; v is read as JSON where it is (3, 1e-3, true, null, [1,3]), else as text.

    Raises NormlabError for what is no pair, and for a key given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise NormlabError("an option as k=v", repr(pair), "as --model-options activation=relu pooling=max")
        if key in options:
            raise NormlabError("each option once", f"{key} twice")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


def parse_shape(text: str, what: str) -> tuple[int, ...]:
    """The sizes in 32,3,224,224; NormlabError on what is none, and on a size below 1."""
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise NormlabError(f"{what} as sizes of at least 1", repr(text), "as 32,3,224,224")
    return sizes

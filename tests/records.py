"""Records that no training made: plausible ones for figures and tables, and any at all for round trips."""

import math
from typing import Any

from hypothesis import strategies as st

from normlab.store import Epoch, Precise, Recipe, Record, Result, Timing
from normlab.store.record import NonFinite


def record(
    epochs: int = 3,
    *,
    trial: str = "0123456789abcdef",
    validation: bool = False,
    test: bool = True,
    precise: bool = True,
    nonfinite: bool = False,
    **recipe: Any,
) -> Record:
    """A run whose loss falls and whose accuracies rise to .9; the last epoch of a non-finite one broke off."""
    rows = []
    for number in range(1, epochs + 1):
        broken = nonfinite and number == epochs
        left = math.exp(-number / 4)
        rows.append(
            Epoch(
                epoch=number,
                train_loss=None if broken else 0.25 + 1.5 * left,
                train_accuracy=0.91 - 0.4 * left,
                validation_accuracy=0.89 - 0.5 * left if validation and not broken else None,
                test_accuracy=0.88 - 0.6 * left if test and not broken else None,
                gradient_norm=None if broken else 1 + left,
            )
        )
    recomputed = Precise(
        train_loss=0.26,
        train_accuracy=0.905,
        validation_accuracy=0.89 if validation else None,
        test_accuracy=0.885 if test else None,
    )
    return Record(
        trial=trial,
        recipe=Recipe(**{"device": "cpu", "threads": 1, "epochs": max(epochs, 1)} | recipe),
        result=Result(
            epochs=tuple(rows),
            precise=recomputed if precise and not nonfinite else None,
            nonfinite=NonFinite(epoch=epochs, step=7) if nonfinite else None,
            nonfinite_batches=0,
            parameters=44878,
        ),
        timing=Timing(examples_per_s=15123.4, seconds=42.0, device="cpu"),
        versions={"python": "3.11", "normlab": "0.1.0", "torch": "2.13.0", "numpy": "2.3"},
        machine={"system": "Linux", "architecture": "x86_64", "processor": "a CPU", "cores": 2},
    )


# What JSON can hold: no NaN, no inf, no half of a surrogate pair.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)

recipes = st.builds(
    Recipe,
    model=TEXT.filter(len),
    model_options=st.dictionaries(TEXT, JSON, max_size=3),
    surgeries=st.lists(st.dictionaries(TEXT, JSON, max_size=3), max_size=2).map(tuple),
    data=TEXT.filter(len),
    train_examples=st.none() | st.integers(1),
    validation=st.integers(0),
    optimizer=st.sampled_from(["sgd", "momentum", "adamw"]),
    lr=st.floats(0, exclude_min=True, allow_infinity=False),
    schedule=st.sampled_from(["constant", "cosine", "one-cycle"]),
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, allow_infinity=False),
    decay_all=st.booleans(),
    batch_size=st.integers(1),
    epochs=st.integers(1),
    seed=st.integers(0, 2**63 - 1),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
    device=TEXT.filter(len),
    threads=st.none() | st.integers(1, 1024),
)
records = st.builds(
    Record,
    trial=st.text("0123456789abcdef", min_size=16, max_size=16),
    recipe=recipes,
    result=st.builds(
        Result,
        epochs=st.lists(
            st.builds(
                Epoch,
                epoch=st.integers(1),
                train_loss=st.none() | NUMBER,
                train_accuracy=SHARE,
                validation_accuracy=st.none() | SHARE,
                test_accuracy=st.none() | SHARE,
                gradient_norm=st.none() | NUMBER,
            ),
            min_size=1,
            max_size=3,
        ).map(tuple),
        precise=st.none()
        | st.builds(
            Precise,
            train_loss=st.none() | NUMBER,
            train_accuracy=SHARE,
            validation_accuracy=st.none() | SHARE,
            test_accuracy=st.none() | SHARE,
        ),
        nonfinite=st.none() | st.builds(NonFinite, epoch=st.integers(1), step=st.integers(1)),
        nonfinite_batches=st.integers(0),
        parameters=st.integers(0),
    ),
    timing=st.builds(Timing, examples_per_s=NUMBER, seconds=NUMBER, device=TEXT),
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
    machine=st.dictionaries(TEXT, TEXT | st.integers(), max_size=3),
)

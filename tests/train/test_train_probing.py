"""Probes leave no trace in a run: with dropout, for every probe, across checkpoints."""

import pytest

from normlab import measure
from normlab.errors import NormlabError
from normlab.measure import PROBES, to_plain
from normlab.store import Recipe
from normlab.train import Interrupted, train

RECIPE = Recipe(
    model="mlp",
    model_options={"widths": [8, 6], "activation": "relu", "dropout": 0.4},
    data="digits-8x8",
    train_examples=130,
    batch_size=32,
    epochs=2,
    lr=0.1,
    optimizer="momentum",
    precise_examples=40,
)
STEPS = 10  # five an epoch, of which the last has two examples
MADE = {
    "activations": measure.activations(every=3),
    "affine": measure.affine(every=1),
    "angular": measure.angular(every=2),
    "bias_gradient": measure.bias_gradient(every=3),
    "curvature": measure.curvature(every=4, iterations=5),
    "drift": measure.drift(every=2),
    "equivalent_rates": measure.equivalent_rates(every=5, weight_decay=0.01, steps=4),
    "fit": measure.fit(every=1),
    "gap": measure.gap(every=5),
    "ics": measure.ics(every=5),
    "landscape": measure.landscape(every=5, factors=(0.5, 2)),
    "optimizer_equation": measure.optimizer_equation(every=2),
    "percentiles": measure.percentiles(every=2),
    "signal": measure.signal(every=5),
    "statistics_graph": measure.statistics_graph(every=5, steps=2),
    "uniformity": measure.uniformity(every=5, channels=2, values=100),
    "synchronized": measure.synchronized(every=5),
    "under_statistics": measure.under_statistics(every=5),
    "variance_ratio": measure.variance_ratio(every=5, draws=1),
}
MEDDLING = {"name": "users_readers:meddling", "every": 2}


@pytest.fixture(scope="module")
def without():
    return train(RECIPE).result


def test_every_probe_is_tested_here():
    assert MADE.keys() == PROBES.keys()


@pytest.mark.parametrize("name", [*MADE, "users_readers:meddling", "all at once"])
def test_a_run_with_probes_is_the_run_without(name, without):
    plain = [to_plain(probe) for probe in MADE.values()] + [MEDDLING]
    chosen = [each for each in plain if name in (each["name"], "all at once")]
    result = train(RECIPE.replace(probes=tuple(chosen))).result
    assert result.epochs == without.epochs
    assert result.precise == without.precise
    assert result.model_copy(update={"probes": {}}) == without
    assert result.probes.keys() == {each["name"] for each in chosen}
    for each in chosen:
        series = result.probes[each["name"]]
        assert series.steps == tuple(range(0, STEPS + 1, each["every"]))[: len(series.steps)]
        assert len(series.steps) >= STEPS // each["every"]
        assert all(len(values) == len(series.steps) for values in series.values.values())
        assert series.values


@pytest.mark.parametrize(
    ("every", "steps"),
    [(0, (0,)), (1, tuple(range(11))), (4, (0, 4, 8)), (5, (0, 5, 10)), (7, (0, 7)), (99, (0, 10))],
)
def test_it_reads_at_its_steps(every, steps):
    series = train(RECIPE.replace(probes=({"name": "users_readers:meddling", "every": every},), seed=3)).result.probes
    assert series["users_readers:meddling"].steps == steps
    assert series["users_readers:meddling"].values == {
        "step": tuple(map(float, steps)), "seed": tuple(3.0 for _ in steps)}  # fmt: skip


def test_what_draws_reads_the_same_alone_and_among_others():
    alone = train(RECIPE.replace(probes=(to_plain(MADE["fit"]),))).result.probes["fit"]
    among = train(RECIPE.replace(probes=(MEDDLING, to_plain(MADE["fit"])))).result.probes["fit"]
    assert among.steps == alone.steps


@pytest.mark.parametrize("stopped", [0, 1, 4, 5, 7, 10])
def test_a_resumed_run_has_the_same_readings(stopped, tmp_path):
    recipe = RECIPE.replace(
        probes=(MEDDLING, *(to_plain(MADE[name]) for name in ("fit", "percentiles", "curvature")))
    )
    whole = train(recipe).result
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked > stopped

    with pytest.raises(Interrupted):
        train(recipe, checkpoints=tmp_path, stop=stop)
    resumed = train(recipe, checkpoints=tmp_path, resume=True).result
    assert resumed == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected probe users_readers:failing to read model mlp, got OSError: no luck$"),
        ({"own": True}, "expected better luck, got this"),
        ({"at": 0}, "users_readers:failing to read"),
    ],
)
def test_a_probe_that_raises_ends_the_run_in_one_sentence(options, message):
    with pytest.raises(NormlabError, match=message):
        train(RECIPE.replace(probes=({"name": "users_readers:failing", "every": 1, **options},)))


def test_what_is_not_finite_is_kept_as_none():
    probe = {"name": "users_readers:failing", "every": 5, "at": 99}
    series = train(RECIPE.replace(probes=(probe,))).result.probes["users_readers:failing"]
    assert series.values == {"inf": (None,) * len(series.steps), "one": (1.0,) * len(series.steps)}


def test_the_same_probe_twice_is_refused():
    with pytest.raises(NormlabError, match="each probe once, got fit, fit"):
        train(RECIPE.replace(probes=({"name": "fit", "every": 1}, {"name": "fit", "every": 2})))

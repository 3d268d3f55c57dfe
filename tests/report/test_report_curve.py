import pytest

import records
from normlab.report.curve import curve

RUNS = {
    "one epoch": records.record(1),
    "two": records.record(2),
    "ten": records.record(10),
    "sixty, all there is": records.record(60, validation=True),
    "no test": records.record(10, test=False),
    "no recomputed statistics": records.record(10, precise=False, validation=True),
    "broke off": records.record(4, nonfinite=True),
    "broke off at once": records.record(1, nonfinite=True),
    "perfect": records.record(3, test=False).model_copy(
        update={"result": records.record(3, test=False).result.model_copy(update={"precise": None})}
    ),
}


def parts(record):
    """The loss's view and the accuracies' layers (lines, points, end)."""
    loss, accuracies = curve(record).to_dict()["vconcat"]
    return loss, accuracies["layer"]


def values(view):
    return view["data"]["values"]


@pytest.mark.parametrize("name", RUNS)
def test_every_number_of_the_record_is_drawn(name):
    record = RUNS[name]
    loss, (lines, _, end) = parts(record)
    assert [row["train_loss"] for row in values(loss)] == [
        epoch.train_loss for epoch in record.result.epochs if epoch.train_loss is not None
    ]
    drawn = {}
    for row in values(lines):
        drawn.setdefault(row["series"], []).append((row["epoch"], row["accuracy"]))
    expected = {
        series: [
            (epoch.epoch, share) for epoch in record.result.epochs if (share := getattr(epoch, name)) is not None
        ]
        for series, name in {
            "training, as the weights move": "train_accuracy",
            "validation, running statistics": "validation_accuracy",
            "test, running statistics": "test_accuracy",
        }.items()
    }
    assert drawn == {series: points for series, points in expected.items() if points}
    precise = record.result.precise
    assert [(row["epoch"], row["accuracy"]) for row in values(end)] == (
        [(len(record.result.epochs), precise.test_accuracy)] if precise and precise.test_accuracy else []
    )


@pytest.mark.parametrize("name", RUNS)
def test_the_legend_names_what_is_drawn_and_nothing_else(name):
    _, layers = parts(RUNS[name])
    drawn = {row["series"] for layer in layers for row in values(layer)}
    for layer in layers:
        for channel in ("color", "strokeDash", "shape"):
            if channel in layer["encoding"]:
                scale = layer["encoding"][channel]["scale"]
                assert set(scale["domain"]) == drawn
                assert len(scale["range"]) == len(scale["domain"])


def test_a_series_looks_the_same_whichever_others_there_are_and_has_a_shape_of_its_own():
    looks, shapes = {}, {}
    for record in RUNS.values():
        _, (lines, points, _) = parts(record)
        channels = [lines["encoding"]["strokeDash"], points["encoding"]["color"], points["encoding"]["shape"]]
        for index, series in enumerate(channels[0]["scale"]["domain"]):
            look = [channel["scale"]["range"][index] for channel in channels]
            looks.setdefault(series, look)
            assert looks[series] == look
            shapes[series] = look[-1]
    assert len(set(shapes.values())) == len(shapes) == 4


@pytest.mark.parametrize("count", [1, 2, 10, 12, 13, 60, 100, 400])
def test_at_most_a_dozen_ticks_at_whole_epochs(count):
    loss, (lines, points, _) = parts(records.record(count))
    for view in (loss, lines):
        ticks = view["encoding"]["x"]["axis"]["values"]
        assert 1 <= len(ticks) <= 12
        assert all(isinstance(tick, int) and 1 <= tick <= count for tick in ticks)
        low, high = view["encoding"]["x"]["scale"]["domain"]
        assert low < 1 <= count < high
    assert len(values(points)) <= 60


@pytest.mark.parametrize("name", RUNS)
def test_every_accuracy_lies_on_its_axis(name):
    _, layers = parts(RUNS[name])
    low, high = layers[0]["encoding"]["y"]["scale"]["domain"]
    assert 0 <= low < high <= 1
    assert all(low <= row["accuracy"] <= high for layer in layers for row in values(layer))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.55, 1.0])
def test_one_accuracy_alone_has_an_axis(share):
    record = records.record(1, test=False, precise=False)
    epoch = record.result.epochs[0].model_copy(update={"train_accuracy": share})
    record = record.model_copy(update={"result": record.result.model_copy(update={"epochs": (epoch,)})})
    low, high = parts(record)[1][0]["encoding"]["y"]["scale"]["domain"]
    assert 0 <= low <= share <= high <= 1
    assert high - low >= 0.05


def test_the_title_tells_the_run_and_where_it_broke_off():
    title = curve(records.record(4, nonfinite=True, model="mlp", lr=0.25)).to_dict()["title"]
    assert title["text"] == "mlp on fashion-mnist"
    assert title["subtitle"] == [
        "sgd, lr 0.25, batch 256, seed 0; trial 0123456789abcdef",
        "the loss was not finite at epoch 4, step 7: training ended there",
    ]
    long = curve(records.record(model="my_package.models:build_resnet", data="my_package.data:load")).to_dict()
    assert long["title"]["text"] == ["my_package.models:build_resnet", "on my_package.data:load"]

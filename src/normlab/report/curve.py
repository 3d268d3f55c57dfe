"""The curve of a run: loss above, accuracies below, over epochs."""

import altair

from normlab.store import Record

_SERIES = {
    "train_accuracy": "training, as the weights move",
    "validation_accuracy": "validation, running statistics",
    "test_accuracy": "test, running statistics",
}
_PRECISE = "test, recomputed statistics"
_COLORS = ["#1f77b4", "#2ca02c", "#d95f02", "#7b3294"]


def curve(record: Record) -> altair.TopLevelMixin:
    """Training loss, training accuracy and accuracies under running statistics after every epoch, and at the
    end, as a diamond, test accuracy under recomputed statistics.
    """
    epochs = [epoch.model_dump() for epoch in record.result.epochs]
    # Whole epochs, at most a dozen of them: Vega would put ticks between two.
    ticks = [number for number in range(1, len(epochs) + 1) if number % max(1, -(-len(epochs) // 12)) == 0]
    x = altair.X("epoch:Q", title="epoch", axis=altair.Axis(values=ticks, format="d"))
    loss = (
        altair.Chart(altair.Data(values=epochs))
        .mark_line(point={"color": "#444"}, color="#444")
        .encode(x=x, y=altair.Y("train_loss:Q", title="training loss (nats)"), tooltip=["epoch:Q", "train_loss:Q"])
        .properties(width=560, height=160)
    )
    rows = [
        {"epoch": epoch["epoch"], "accuracy": epoch[name], "series": series}
        for epoch in epochs
        for name, series in _SERIES.items()
        if epoch[name] is not None
    ]
    precise = record.result.precise
    final = (
        []
        if precise is None or precise.test_accuracy is None
        else [{"epoch": len(epochs), "accuracy": precise.test_accuracy, "series": _PRECISE}]
    )
    domain = [name for name in (*_SERIES.values(), _PRECISE) if any(row["series"] == name for row in rows + final)]
    color = altair.Color(
        "series:N",
        title=None,
        scale=altair.Scale(domain=domain, range=_COLORS[: len(domain)]),
        legend=altair.Legend(orient="bottom", columns=2, labelLimit=280),
    )
    encoding = {
        "x": x,
        "y": altair.Y("accuracy:Q", title="accuracy", scale=altair.Scale(zero=False)),
        "color": color,
        "tooltip": ["series:N", "epoch:Q", altair.Tooltip("accuracy:Q", format=".4f")],
    }
    lines = altair.Chart(altair.Data(values=rows)).mark_line(point=True).encode(**encoding)
    end = (
        altair.Chart(altair.Data(values=final)).mark_point(shape="diamond", size=120, filled=True).encode(**encoding)
    )
    recipe = record.recipe
    return (
        altair.vconcat(loss, (lines + end).properties(width=560, height=220))
        .properties(
            title=altair.TitleParams(
                f"{recipe.model} on {recipe.data}",
                subtitle=f"{recipe.optimizer}, lr {recipe.lr:g}, batch {recipe.batch_size}, seed {recipe.seed}; "
                f"trial {record.trial}",
                anchor="start",
            )
        )
        .configure_view(stroke=None)
    )

"""A chart into a file: PNG and SVG through vl-convert, HTML that works offline, JSON as Vega-Lite."""

import html
import json
import os
from pathlib import Path
from typing import Any

import altair

from normlab.errors import NormlabError
from normlab.report import script
from normlab.report.words import printable
from normlab.store.files import write_atomically
from normlab.store.verdict import Figure

WIDTH = 560
"""Pixels of a picture that stands alone."""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<title>{title}</title>
<style>
body {{ margin: 1rem; font-family: system-ui, sans-serif; background: #fff; color: #222 }}
#chart {{ width: 100%; overflow-x: auto }}
#chart svg {{ max-width: 100%; height: auto }}
</style>
</head>
<body>
<div id="chart" role="img" aria-label="{description}"></div>
<script>{bundle}</script>
<script>
const spec = {spec};
// Concatenated views have no width of their own accord; axes and labels take about 90 pixels.
const room = document.body.clientWidth - 90;
for (const view of spec.vconcat ?? [spec]) view.width = Math.min(view.width, room);
vegaEmbed("#chart", spec, {{actions: false, renderer: "svg"}});
</script>
</body>
</html>
"""


def check_target(path: Path) -> None:
    """Raises NormlabError if no figure can be written there: the ending, or the folder."""
    if path.suffix.lower() not in (".png", ".svg", ".html", ".json"):
        raise NormlabError("a figure as .png, .svg, .html or .json", repr(str(path)))
    if path.is_dir():
        raise NormlabError("a figure as a file", f"the folder {path}", "name a file in it")
    if not path.parent.is_dir():
        raise NormlabError("a figure in a folder that is there", str(path.parent), "make it first")
    if not os.access(path.parent, os.W_OK):
        raise NormlabError("a figure in a folder that may be written to", str(path.parent), "name another")


def save(chart: altair.TopLevelMixin, path: Path, title: str) -> None:
    """Draw a chart; the ending of the path says how, the title is that of the HTML page.

    Raises NormlabError where it cannot be written.
    """
    write(chart.to_dict(), path, title)


def svg(figure: Figure) -> str:
    """A study's figure as a picture that stands alone, on white."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(_alone(figure.spec | {"background": "white"}))
    return drawn


def _alone(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart that would take its page's width gets one of its own."""
    own: dict[str, Any] = _printable(spec)
    return own | {"width": WIDTH} if own.get("width") == "container" else own


def _printable(value: Any) -> Any:
    """A control character in a name would end the whole process within vl-convert."""
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_printable(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def write(spec: dict[str, Any], path: Path, title: str) -> None:
    """Likewise for a chart as Vega-Lite; one that takes its page's width gets one of its own."""
    import vl_convert

    spec = _alone(spec)
    if path.suffix.lower() == ".png":
        content = vl_convert.vegalite_to_png(spec, scale=2)
    elif path.suffix.lower() == ".svg":
        content = vl_convert.vegalite_to_svg(spec).encode()
    elif path.suffix.lower() == ".json":
        content = json.dumps(spec, allow_nan=False).encode()
    else:
        description = html.escape(str(spec.get("description", title)))
        content = _TEMPLATE.format(
            title=html.escape(title), description=description, bundle=script.bundle(), spec=script.embedded(spec)
        ).encode()
    try:
        write_atomically(path, content)
    except OSError as error:
        raise NormlabError(
            f"to write the figure {path}", error.strerror, "free the disk, or name another file"
        ) from error

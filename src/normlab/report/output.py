"""A verdict as a notebook shows it: no script and nothing to fetch, so that an untrusted notebook shows it too."""

import base64
import functools

import jinja2

from normlab.report import words
from normlab.report.figure import svg
from normlab.store.verdict import Figure, Verdict

_TEMPLATE = """<div class="normlab">
<p><strong>{{ words.SIGNS[verdict.word] }} {{ verdict.word }}</strong>: {{ verdict.question }}</p>
<p>{{ verdict.sentence }}</p>
<table>
<thead><tr><th>rule</th><th>found</th><th>n</th><th>effect</th><th>interval</th><th>p</th></tr></thead>
<tbody>
{% for finding in verdict.findings %}
<tr><td style="text-align: left">{{ finding.rule }}{% if finding.beside %} (beside the verdict){% endif %}</td>
{% for cell in (finding.word, finding.n, words.effect(verdict, finding), words.interval(verdict, finding),
words.p_value(finding.p)) %}<td style="white-space: nowrap">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% if verdict.rules_before is not none %}
<p><strong>The rules were changed.</strong> Before the first trial they were:
{{ verdict.rules_before | join("; ") }}</p>
{% endif %}
{% for figure in verdict.figures %}
<figure style="margin: 1em 0"><figcaption>{{ figure.title }}</figcaption>
<img alt="{{ figure.description }}" style="max-width: 100%" src="{{ figure | picture }}"></figure>
{% endfor %}
<p>{{ verdict.setting }}.{% if verdict.caveats %} {{ verdict.caveats | join(" ") }}{% endif %}</p>
<p><code>{{ verdict.command }}</code></p>
</div>
"""


def html(verdict: Verdict) -> str:
    """The word, the answer, what the rules found, and the figures as pictures."""
    return _template().render(verdict=verdict, words=words)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["picture"] = _picture
    return environment.from_string(_TEMPLATE)


def _picture(figure: Figure) -> str:
    """In an `img` nothing in it can run."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode()

"""The rules of `normlab check` as one page of markdown: a table, then each rule."""

from collections.abc import Iterator

from normlab.explain.page import text
from normlab.explain.rules import RuleTopic, rules

COMMAND = "normlab explain --rules --output docs/rules.md"
SEVERITIES = (
    "An **error** computes something else than was meant, a **warning** likely trains or evaluates worse, and a "
    "**note** could be simpler or faster; only errors and warnings make the exit code 1."
)


def rules_page() -> str:
    """Every rule, from its file."""
    return "\n".join(_page([*rules().values()])) + "\n"


def _page(found: list[RuleTopic]) -> Iterator[str]:
    yield "# What `normlab check` looks for"
    yield ""
    yield (
        "`normlab check my_file:build --batch 32,3,224,224` asks these rules of a model, and so does "
        "`normlab.check(model, batch)`. `normlab explain ID` tells what is told here. "
        "`--select NL1` asks those alone whose id begins so; `--ignore NL101=REASON` leaves one out. "
        f"{SEVERITIES}"
    )
    for folder in dict.fromkeys(rule.folder for rule in found):
        yield from ("", text(folder), "", "| rule | severity | what |", "|---|---|---|")
        for rule in found:
            if rule.folder == folder:
                yield f"| [{rule.id}](#{rule.id.lower()}) | {rule.severity} | {text(rule.title)} |"
    for rule in found:
        yield from ("", f'<a id="{rule.id.lower()}"></a>', "", f"## {rule.id}: {text(rule.title)}")
        for paragraph in rule.why:
            yield from ("", text(paragraph))
        yield ""
        yield f"- **Mend**: {text(rule.remedy)}" + (f"; `{rule.mended_by}` does it" if rule.mended_by else "")
        if rule.study:
            yield f"- **Study**: `normlab study run {rule.study}`"
        yield f"- **Source**: {text(rule.source)}"
    yield ""
    yield f"Made from `src/normlab/rules/` by `{COMMAND}`."

"""What an offline page runs: one bundle of Vega for all its charts, and a policy that lets nothing else run."""

import base64
import hashlib
import json
from typing import Any


def bundle() -> str:
    """Vega, Vega-Lite and vega-embed, whole: `vegaEmbed(element, spec, options)`."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")


def embedded(value: Any) -> str:
    """JSON for a script element: a name in it may be anything, "</script>" or "<!--" too.

    Unicode's line separators become spaces: Vega takes a string with one in it for two lines of a program.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")


def policy(*scripts: str) -> str:
    """Content security policy of a page that runs these inline scripts, and loads nothing from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"

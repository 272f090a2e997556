"""``report.html``: the verdict as one page, no network, no script needed to read it."""

from __future__ import annotations

import json
import re
from typing import Any

import jinja2
from markupsafe import Markup, escape

MARKS = {
    "passed": "✓",
    "failed": "✗",
    "error": "!",
    "blocked": "⊘",
    "inconclusive": "?",
    "skipped": "–",
    "unsupported": "·",
    "not run": "·",
}


def render_report(verdict: dict[str, Any]) -> str:
    """Return the HTML page of a verdict."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gaugeblock.conformance", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False)
    environment.filters["evidence"] = _evidence
    failures = [c for c in verdict["checks"] if c["outcome"] in ("failed", "error")]
    template = environment.get_template("report.html.j2")
    return template.render(v=verdict, failures=failures, marks=MARKS, layers=_by_layer(verdict))


def _prose(text: str) -> Markup:
    """Show ``names`` in double backquotes as code."""
    return Markup(re.sub(r"``(.+?)``", r"<code>\1</code>", str(escape(text)), flags=re.DOTALL))


def _evidence(values: list[Any]) -> str:
    """Show sentences as they are, one a line, and anything else as JSON."""
    return "\n".join(v if isinstance(v, str) else json.dumps(v, indent=1, ensure_ascii=False) for v in values)


def _by_layer(verdict: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    return [
        (layer, [check for check in verdict["checks"] if check["layer"] == layer["name"]])
        for layer in verdict["layers"]
    ]

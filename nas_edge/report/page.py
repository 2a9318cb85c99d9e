"""The page: one self-contained HTML file that makes no network requests.

The report travels as compressed JSON and is written into the page by `page.js` as text, never as markup, so nothing
in a run folder can inject markup. A content security policy allows the page's own two scripts, by
their hashes, and nothing else: no other scripts, images or connections.

Plots are drawn by Vega-Lite (BSD), which is bundled with the package `vl-convert-python`: 0.9 MB in the page.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from functools import cache
from importlib import resources

from nas_edge.report.content import Report


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def to_page(report: Report, live: bool = False) -> str:
    """The report as HTML.

    Args:
        report: what to show.
        live: whether the page polls its own server for updates, see `serve`.
    """
    content = base64.b64encode(gzip.compress(report.to_json().encode(), 4, mtime=0)).decode()
    parts = {
        "policy": policy(live),
        "title": html.escape(f"{report.title} - nas_edge"),
        "live": "yes" if live else "no",
        "css": _file("page.css"),
        "content": content,
        "library": library(),
        "js": _file("page.js"),
    }
    before, *pieces = _file("page.html").split("{{")
    for piece in pieces:
        name, _, after = piece.partition("}}")
        before += parts[name] + after
    return before


def policy(live: bool) -> str:
    """The content security policy: the page may run its two scripts and, if live, connect to its server."""
    scripts = " ".join(_source(script) for script in (library(), _file("page.js")))
    asked = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src {asked}; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (resources.files("nas_edge.report") / name).read_text(encoding="utf-8")


def _source(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

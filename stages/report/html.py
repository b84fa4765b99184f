"""Self-contained HTML pages: style, script, charts and pictures inline, data escaped, no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
from itertools import count
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stages.report.chart import WIDTH
from stages.report.table import Value
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.table import Table

MOST_ROWS = 700  # of a table in a page; a longer one would fill it, and stands in a file beside it


def render(
    template: str,
    context: Mapping[str, Any],
    *,
    package: str = "stages.report",
    styles: Sequence[str] = ("report.css",),
    script: str = "report.js",
) -> str:
    """Return the HTML of a page; the same arguments give the same bytes.

    ``template``, ``styles`` and ``script`` are files in the folder ``template`` of the ``package``, or of the report.
    """
    loader = ChoiceLoader([PackageLoader(name, "template") for name in dict.fromkeys((package, "stages.report"))])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["name"] = printable
    environment.tests["value_cell"] = lambda cell: isinstance(cell, Value)
    style = "".join(loader.get_source(environment, name)[0] for name in styles)
    code = loader.get_source(environment, script)[0]
    environment.globals |= {
        "width": WIDTH,
        "most_rows": MOST_ROWS,
        "next_number": count(1).__next__,  # of a chart, for ids that are unique in the page
        "style": Markup(style),  # noqa: S704 - our own file, not data
        "script": Markup(code),  # noqa: S704
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(code),
    }
    return environment.get_template(template).render(context) + "\n"


def table_page(table: Table) -> str:
    """Return the HTML of a page of one table."""
    return render("table_page.html.j2", {"table": table})


def _csp_hash(text: str) -> str:
    """Name a source by hash: the content security policy allows this style and script, nothing else."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""report.html: one self-contained page with inline style, script, figures and pictures, and no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stages.report import plots, sections
from stages.report.curves import MOST_HEADS
from stages.report.figures import WIDTH
from stages.report.observation import observations
from stages.report.table import Value
from stages.report.tables import METRIC_NAMES
from stages.report.thumbnails import SIDE
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.report.intervals import Uncertainty
    from stages.report.results import Results
    from stages.report.swept import Sweep
    from stages.report.table import Table
    from stages.report.thumbnails import Errors

# Sets above this number have their curves folded away until asked for.
_MOST_ROWS = 700  # of a table in the page; longer ones are in the tables beside it, and would fill the page
_OPEN_SETS = 6


@dataclass(frozen=True)
class Analyses:
    """What the analyse stage found for the corpora of the study; each may be empty."""

    profiles: Sequence[AnalysisFile] = ()
    windows: Sequence[AnalysisFile] = ()
    projections: Sequence[AnalysisFile] = ()


@dataclass(frozen=True)
class Background:
    """What a reader has to know beside the numbers.

    Attributes:
        study: name of the study.
        notes: caveats, printed first.
        audits: contents of the audit files, with ``corpus`` and ``warnings``.
        versions: program -> version.
        head_cards: head -> setting -> value.
        reproduce: commands that make this report again.
    """

    study: str
    notes: Sequence[str] = ()
    audits: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    head_cards: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    reproduce: Sequence[str] = ()


def render_page(
    results: Results,
    uncertainty: Uncertainty,
    background: Background,
    *,
    analyses: Analyses,
    sweeps: Mapping[str, Sweep],
    tables: Mapping[str, Table | None],
    published: Sequence[Table],
    errors: Sequence[Errors],
) -> str:
    """Return the page's HTML; the same arguments give the same bytes.

    Args:
        results: what was measured.
        uncertainty: intervals and tests.
        background: what is known of the study beside them.
        analyses: transition profiles, windows and projections.
        sweeps: kind -> what was found.
        tables: by name, each None where there is nothing to show.
        published: tables of published beside measured numbers.
        errors: the surest errors of the first head, with pictures.
    """
    numbers = count(1)
    bars = plots.bar_plots(results, uncertainty, numbers)
    curves = plots.curve_plots(results, numbers)
    context: dict[str, Any] = {
        "study": background.study,
        "width": WIDTH,
        "thumbnail_side": SIDE,
        "caveats": [*background.notes, *sections.warnings(results, background.audits)],
        "headline": sections.headline(results),
        "facts": sections.facts(results),
        "metric_groups": sections.metric_groups(results),
        "set_count": len(results.sets) + len(results.missing),
        "entries": sections.entries(results, uncertainty),
        "any_spread": any(len(results.seeds(entry)) > 1 for entry in results.entries),
        "matrices": [sections.matrix(results, metric) for metric in sections.MATRICES],
        "bar_kinds": [(metric, METRIC_NAMES[metric]) for metric in plots.BAR_METRICS],
        "head_legend": plots.head_legend(results),
        "most_rows": _MOST_ROWS,
        "heads_left_out": len(results.entries) > MOST_HEADS,
        "bar_plots": bars,
        "curve_plots": curves,
        "curves_open": len(curves) <= _OPEN_SETS,
        "per_set": sections.per_set(results, uncertainty),
        "robustness_plots": plots.robustness_plots(results, numbers),
        "observations": observations(analyses.profiles, numbers, [tested.name for tested in results.sets]),
        "window_plots": plots.window_plots(results, analyses.windows, numbers),
        "chosen_windows": plots.chosen_windows(results),
        "sweep_plots": plots.sweep_plots(sweeps, numbers),
        "projection_plots": plots.projection_plots(analyses.projections, numbers),
        "tables": tables,
        "published": published,
        "errors": errors,
        "error_head": results.entries[0].label,
        "undefined_values": sections.undefined(results),
        "reproduce": background.reproduce,
        "provenance": sections.provenance(results, analyses.profiles, background.versions, background.head_cards),
    }
    return _render("report.html.j2", context)


def render_table(table: Table) -> str:
    """Return a page of its own for one table."""
    return _render("table.html.j2", {"table": table})


def _render(template: str, context: Mapping[str, Any]) -> str:
    loader = PackageLoader("stages.report", "template")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["name"] = printable
    environment.tests["value_cell"] = lambda cell: isinstance(cell, Value)
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    ours = {
        "style": Markup(style),  # noqa: S704 - our own file, not data
        "script": Markup(script),  # noqa: S704
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }
    return environment.get_template(template).render(ours | dict(context)) + "\n"


def _csp_hash(text: str) -> str:
    """Name a source by hash: the content security policy allows this style and script, nothing else."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

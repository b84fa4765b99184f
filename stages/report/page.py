"""report.html: one self-contained page with inline style, script and figures, and no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
from itertools import count
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stages.evaluate.metrics import METRICS
from stages.report import sections
from stages.report.figures import WIDTH
from stages.report.names import printable
from stages.report.observation import observations
from stages.report.tables import MAIN_METRICS, METRIC_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.analyse.run import ProfileFile
    from stages.report.results import Results


def render_page(
    results: Results,
    profiles: Sequence[ProfileFile],
    *,
    study: str,
    notes: Sequence[str],
    versions: Mapping[str, str],
    head_cards: Mapping[str, Mapping[str, object]],
) -> str:
    """Return the page's HTML; the same arguments give the same bytes.

    Args:
        results: what was measured.
        profiles: transition profiles of the corpora, may be empty.
        study: name of the study.
        notes: what a reader has to know before the numbers.
        versions: program -> version.
        head_cards: head -> setting -> value, for the provenance.
    """
    loader = PackageLoader("stages.report", "template")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["name"] = printable
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    numbers = count(1)
    return (
        environment.get_template("report.html.j2").render(
            study=study,
            style=Markup(style),  # noqa: S704 - our own file, not data
            script=Markup(script),  # noqa: S704
            style_hash=_csp_hash(style),
            script_hash=_csp_hash(script),
            width=WIDTH,
            caveats=[*notes, *sections.warnings(results)],
            facts=sections.facts(results),
            metrics=[sections.metric(results, metric) for metric in METRICS],
            entries=sections.entries(results),
            any_spread=any(len(results.seeds(entry)) > 1 for entry in results.entries),
            matrices=[sections.matrix(results, metric) for metric in MAIN_METRICS],
            bar_kinds=[(metric, METRIC_NAMES[metric]) for metric in sections.BAR_METRICS],
            bar_plots=sections.bar_plots(results, numbers),
            per_set=sections.per_set(results),
            observations=observations(profiles, numbers),
            undefined_values=sections.undefined(results),
            provenance=sections.provenance(results, profiles, versions, head_cards),
        )
        + "\n"
    )


def _csp_hash(text: str) -> str:
    """Name a source by hash: the content security policy allows this style and script, nothing else."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""The summary of an extraction, in lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.extract.summary import ExtractSummary

_REASONS_SHOWN = 10


def summary_lines(name: str, summary: ExtractSummary) -> Iterator[str]:
    """Yield what a run did: counts, failures by kind and reason, formats per class, small images, time.

    Args:
        name: of the corpus.
        summary: what the run did.
    """
    failed = sum(summary.failed.values())
    yield f"{name}: {summary.usable} images usable, {summary.extracted} extracted now, key {summary.key}"
    if failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.failed_kinds.items()))
        yield f"{name}: {failed} failed: {kinds}; recorded in index.parquet"
        most = sorted(summary.failed.items(), key=lambda item: (-item[1], item[0]))
        for reason, count in most[:_REASONS_SHOWN]:
            yield f"  {count} x {reason}"
        if len(most) > _REASONS_SHOWN:
            yield f"  and {len(most) - _REASONS_SHOWN} other reasons"
    if len(summary.keys) > 1:
        yield f"{name}: views {', '.join(f'{view} (+{count})' for view, count in summary.views.items())}"
    for row in summary.formats:
        size = "size unknown" if row.median_size is None else "median {} x {}".format(*row.median_size)
        quality = "" if row.median_quality is None else f", quality {row.median_quality}"
        yield f"  {row.label:10} {row.format:8} {row.images:8} images, {size}{quality}"
    if summary.small:
        yield f"{name}: {summary.small} images are smaller than the crop (padded or repeated, as the geometry says)"
    time = summary.timing
    if summary.extracted and time.wall:
        parts = ("read", "decode", "view", "backbone", "write", "waiting")
        split = ", ".join(f"{part} {getattr(time, part):.1f}" for part in parts)
        yield f"{name}: {summary.extracted / time.wall:.1f} images/s; seconds: {split}; wall {time.wall:.1f}"

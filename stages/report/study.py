"""What a report shows of a study beside its scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage.sources import Sources


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is known of a study beside its scores; only the name is needed.

    Attributes:
        name: the title of the report.
        notes: what a reader has to know before the numbers; printed first.
        made_from: what made the numbers, as "Backbone" -> "clip-vit-l-14"; printed below the title.
        random_weights: whether the backbone has random weights, so that nothing follows from the numbers.
        head_order: heads in the order of the tables; others follow in order of name. The first is compared with each.
        set_order: test sets, by name or as ``corpus/name``, in the order of the protocol; others follow.
        set_lists: named lists of test sets -> members, for the published numbers.
        head_settings: head -> setting -> value, shown under provenance.
        versions: program -> version, shown under provenance.
        sources: corpus -> where its images are; the most confident errors on them are pictured.
        audits: contents of the audit files; their warnings are printed on top, and the sets that they found without
            images are counted.
    """

    name: str
    notes: Sequence[str] = ()
    made_from: Mapping[str, str] = field(default_factory=dict)
    random_weights: bool = False
    head_order: Sequence[str] = ()
    set_order: Sequence[str] = ()
    set_lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    head_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Sources] = field(default_factory=dict)
    audits: Sequence[Mapping[str, Any]] = ()

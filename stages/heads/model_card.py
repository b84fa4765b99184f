"""A head file as a model card in Markdown: what it is, what it was trained on, and its limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stages.extract.registry import has_random_weights
from stages.heads.file import settings_of
from storage.atomic import sha256_of
from storage.errors import DataError
from storage.headfile import load_head

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def model_card(head: Path) -> str:
    """Return the model card of a head file, from its metadata alone.

    Raises:
        DataError: the file is missing, damaged, or no head file of ours.
    """
    _, metadata = load_head(head)
    lacking = {"head", "seed", "settings", "feature_spec", "feature_key", "parameters", "facts"} - metadata.keys()
    if lacking:
        raise DataError(f"head {head} does not say its {', '.join(sorted(lacking))}; train it again")
    spec, settings, facts = json.loads(metadata["feature_spec"]), metadata["settings"], dict(metadata["facts"])
    selection = facts.pop("window_selection", None)
    random = "random, " if has_random_weights(spec["backbone"], spec["weights"]) else ""
    sections = {
        "Head": {
            "Parameters": f"{metadata['parameters']:,}",
            **{name: value for name, value in settings.items() if name not in {"type", "train"}},
            "File": f"{head.name}, sha256 {sha256_of(head)}",
        },
        "Training": _training(metadata),
        "What training did": facts | _facts_in_words(facts),
        "Choice of the window": None if selection is None else _window_choice(selection, settings["window"]),
        "Features": {
            "Key": metadata["feature_key"],
            "Backbone": f"{spec['backbone']}, {spec['blocks']} blocks of width {spec['width']}",
            "Weights": f"{random}sha256 {spec['weights']}",
            "Activation": spec["activation"],
            "Precision": spec["precision"],
            "View": spec["view"],
        },
        "Limits": "It knows the generators it was trained on. On others its ranking transfers better than the "
        "threshold at logit 0 does: calibrate one on images of your own, and measure per generator before relying on "
        "it.",
    }
    parts = [
        f"# {metadata['head']}, seed {metadata['seed']}",
        f"{settings_of(metadata, head).about}.",
        "It reads cached features of a frozen backbone and gives one logit per image; above 0 says synthetic.",
    ]
    for title, content in sections.items():
        if content:
            parts += [f"## {title}", content if isinstance(content, str) else _table(content)]
    return "\n\n".join(parts) + "\n"


def _training(metadata: Mapping[str, Any]) -> dict[str, Any]:
    if "imported" in metadata:
        source = metadata["imported"]
        return {"Imported from": f"{source['file']} ({source['format']}), sha256 {source['sha256']}"}
    best, images, train = metadata["best"], metadata["images"], metadata["train"]
    return {
        "Corpus": f"{metadata['corpus']}, fingerprint {metadata['corpus_index_sha256']}",
        "Images": ", ".join(f"{count} {name}" for name, count in sorted(images.items())),
        **({"Order of images": metadata["image_order"]} if "image_order" in metadata else {}),
        "Best epoch": f"{best['epoch']} of 0..{train['epochs'] - 1}, chosen by {metadata['validation']}",
        "Validation accuracy": f"{best['validation_accuracy']:.4f} at logit 0",
        "Validation loss": f"{best['validation_loss']:.4f}",
        **train,
        "Versions": ", ".join(f"{name} {number}" for name, number in sorted(metadata["versions"].items())),
    }


def _facts_in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    words = {name: ", ".join(f"{pi:.3f}" for pi in facts[name]) for name in ("pi", "pi_before") if name in facts}
    if "window_moved" in facts:
        words["window_moved"] = "yes" if facts["window_moved"] else "no: training left the random initial window"
    return words


def _window_choice(selection: Mapping[str, Any], window: int) -> str:
    epochs = selection["epochs"]
    lines = ["Held-out loss of each window; those without one were dropped before.", ""]
    lines += [f"| blocks | {' | '.join(f'after {number} epochs' for number in epochs)} |"]
    lines += ["|---|" + "---|" * len(epochs)]
    for each in selection["windows"]:
        losses = [f"{loss:.4f}" for loss in each["held_out_losses"]]
        cells = " | ".join(losses + [""] * (len(epochs) - len(losses)))
        doubt = ", dropped in doubt" if each["start"] in selection.get("dropped_in_doubt", ()) else ""
        lines.append(f"| {each['start']}..{each['start'] + window - 1}{doubt} | {cells} |")
    best_two = f"{selection['difference']:.4f}, standard error {selection['standard_error']:.4f}"
    return "\n".join([*lines, "", f"The best two differ by {best_two}."])


def _table(values: Mapping[str, Any]) -> str:
    cells = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    escaped = (
        (name.replace("|", "\\|"), value.replace("|", "\\|").replace("\n", " ")) for name, value in cells.items()
    )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in escaped)])

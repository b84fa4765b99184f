"""A head file as a model card in Markdown: what it is, what it was trained on, and its limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from storage.atomic import sha256_of
from storage.errors import DataError
from storage.headfile import load_head

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FAMILIES = {
    "ltd": "Latent Transition Discrepancy: how the class token moves between adjacent blocks (arXiv 2603.10598)",
    "linear": "Linear probe on class tokens",
    "univfd": "UnivFD: one linear layer on the final embedding (CVPR 2023)",
    "rine": "RINE: class tokens of all blocks, weighted by a trainable importance (ECCV 2024)",
    "layer-transformer": "Attention over the class tokens of all blocks of an unadapted backbone; not ForgeLens itself",
}


def model_card(head: Path) -> str:
    """Return the model card of a head file, from its metadata alone.

    Raises:
        DataError: the file is missing, damaged, or no head file of ours.
    """
    _, metadata = load_head(head)
    if "feature_spec" not in metadata:
        raise DataError(f"{head} does not say which features it reads, as a bundle; name the head file in heads/")
    spec = json.loads(metadata["feature_spec"])
    settings = metadata["settings"]
    parts = [
        f"# {metadata['head']}, seed {metadata['seed']}",
        _FAMILIES[settings["type"]] + ".",
        "It reads cached features of a frozen backbone and gives one logit an image; above 0 says synthetic.",
        _section(
            "Head",
            {
                "Parameters": f"{metadata['parameters']:,}",
                **{name: value for name, value in settings.items() if name not in {"type", "train"}},
                "File": f"{head.name}, sha256 {sha256_of(head)}",
            },
        ),
        _section("Training", _training(metadata)),
        _section("What training did", _facts(metadata["facts"])),
        _window_choice(metadata["facts"].get("window_selection"), settings.get("window")),
        _section(
            "Features",
            {
                "Key": metadata["feature_key"],
                "Backbone": f"{spec['backbone']}, {spec['blocks']} blocks of width {spec['width']}",
                "Weights": f"sha256 {spec['weights']}",
                "Activation": spec["activation"],
                "Precision": spec["precision"],
                "View": spec["view"],
            },
        ),
        "## Limits\n\n"
        "It knows the generators it was trained on. On others the order of its scores holds better than the threshold "
        "at logit 0 does: calibrate one on images of your own, and measure per generator before relying on it.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _training(metadata: Mapping[str, Any]) -> dict[str, Any]:
    if "imported" in metadata:
        source = metadata["imported"]
        return {"Imported from": f"{source['file']} ({source['format']}), sha256 {source['sha256']}"}
    best, images, train = metadata["best"], metadata["images"], metadata["train"]
    return {
        "Corpus": f"{metadata['corpus']}, fingerprint {metadata['corpus_index_sha256']}",
        "Images": ", ".join(f"{count} {name}" for name, count in sorted(images.items())),
        "Best epoch": f"{best['epoch']} of 0..{train['epochs'] - 1}, chosen by {metadata['validation']}",
        "Validation accuracy": f"{best['validation_accuracy']:.4f} at logit 0",
        "Validation loss": f"{best['validation_loss']:.4f}",
        **train,
        "Versions": ", ".join(f"{name} {number}" for name, number in sorted(metadata["versions"].items())),
    }


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in facts.items() if name != "window_selection"}
    for name in ("pi", "pi_before"):
        if name in shown:
            shown[name] = ", ".join(f"{value:.3f}" for value in shown[name])
    if "window_moved" in shown:
        moved = "yes" if shown["window_moved"] else "no: the window is still that of the initial draw"
        shown["window_moved"] = moved
    return shown


def _window_choice(selection: Mapping[str, Any] | None, window: int) -> str:
    if selection is None:
        return ""
    rounds = " | ".join(f"after {epochs} epochs" for epochs in selection["epochs"])
    lines = ["## Choice of the window", "", "Held-out loss of each window; those without one were dropped before.", ""]
    lines += [f"| blocks | {rounds} |", "|---|" + "---|" * len(selection["epochs"])]
    for each in selection["windows"]:
        losses = [f"{loss:.4f}" for loss in each["held_out_losses"]]
        cells = " | ".join(losses + [""] * (len(selection["epochs"]) - len(losses)))
        lines.append(f"| {each['start']}..{each['start'] + window - 1} | {cells} |")
    lines += ["", f"The best two differ by {selection['difference']:.4f}, standard error"]
    return "\n".join(lines) + f" {selection['standard_error']:.4f}."


def _section(title: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")

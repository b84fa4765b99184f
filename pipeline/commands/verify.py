"""Is what was extracted still what was written?"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, corpus_option, echo, refuse_both
from pipeline.commands.data import extract
from storage.errors import DataError

if TYPE_CHECKING:
    from storage.store import Fault


@click.command()
@click.argument("folder", required=False, type=PATH)
@corpus_option
@click.option("--repair", is_flag=True, help="Restore damaged files from the store; make again what it lacks.")
def verify(*, folder: Path | None, corpus: str | None, repair: bool) -> None:
    """Hash extracted features again and compare with what was written.

    Without an argument, all corpora of params.yaml that were extracted; or one --corpus; or FOLDER, as `ltdpipe extract
    FOLDER --out` wrote it. With --repair, damaged files are replaced by the store's sound copies; a lost index is put
    together from the sidecars, without inference; and shards without a sound copy are extracted again, no others.
    Exits with 3 while anything is damaged.
    """
    again = "ltdpipe verify --repair"
    if folder is not None:
        refuse_both(folder, corpus)
        again = shlex.join(["ltdpipe", "verify", str(folder), "--repair"])
        remaining = _verify(folder, repair)
        if remaining and repair:
            raise DataError(
                f"{len(remaining)} files of {folder} have no sound copy and were removed; run the `ltdpipe extract` "
                "command that made the folder again: it makes these shards and no others"
            )
    else:
        remaining = []
        corpora = workspace.project_params().corpora
        for name in [corpus] if corpus else corpora:
            workspace.defined(corpora, name, "corpora")
            remaining += _verify_corpus(name, repair, needed=corpus is not None)
    if remaining:
        raise DataError(f"{len(remaining)} files are damaged; `{again}` restores them")


def _verify_corpus(name: str, repair: bool, *, needed: bool) -> list[Fault]:
    """Verify and repair one corpus of params.yaml; return what remains."""
    from storage.manifest import read_manifest
    from storage.store import store_root
    from storage.verification import rebuild_index, store_folder

    folder = workspace.features(name)
    if not folder.is_dir() and not needed:
        echo(f"{name}: not extracted")
        return []
    views = {view: store_folder(view, store_root()) for view in views_in(folder)}
    remaining = _verify(folder, repair)
    if not (remaining and repair):
        return remaining
    for fault in [fault for fault in remaining if fault.path.name == "index.parquet"]:
        view = fault.path.parent
        alone = all(other is fault or other.path.parent != view for other in remaining)
        if alone and (home := views.get(view)) is not None:
            rebuild_index(view, home, read_manifest(workspace.manifest(name)), name, echo)
            echo(f"{fault.path}: put together from the sidecars")
            remaining.remove(fault)
    if remaining:
        extract.main(["--corpus", name], standalone_mode=False)
        remaining = _verify(folder, repair=False)
    return remaining


def _verify(folder: Path, repair: bool) -> list[Fault]:
    """Verify all views in a folder, restore what the store can, say what was found; return what remains."""
    from storage.store import store_root
    from storage.verification import faults, restore_from_store, store_folder

    remaining: list[Fault] = []
    for view in views_in(folder):
        found = faults(view)
        echo(f"{view}: {len(found)} damaged files" if found else f"{view}: sound")
        for fault in found:
            echo(f"  {fault}")
        if found and repair:
            home = store_folder(view, store_root())
            cache = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "cache")
            left = restore_from_store(found, home or store_root() / "none", [cache], echo)
            for fault in found:
                echo(f"  {fault.path}: {'no sound copy, removed' if fault in left else 'restored'}")
            found = left
        remaining += found
    return remaining


def views_in(folder: Path) -> list[Path]:
    """Return the views in a folder of features; the folder itself if it is one.

    Raises:
        DataError: there is none.
    """
    if any(folder.glob("shard-*")):
        return [folder]
    views = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not views:
        raise DataError(f"{folder} holds no extracted features; `ltdpipe extract` makes them, or goes on with them")
    return views

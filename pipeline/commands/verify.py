"""Is what was extracted still what was written?"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, corpus_option, echo, refuse_both
from storage.errors import DataError


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
        remaining = {}
        corpora = workspace.project_params().corpora
        for name in [corpus] if corpus else corpora:
            workspace.defined(corpora, name, "corpora")
            remaining |= _verify_corpus(name, repair, needed=corpus is not None)
    if remaining:
        raise DataError(f"{len(remaining)} files are damaged; `{again}` restores them")


def _verify_corpus(name: str, repair: bool, *, needed: bool) -> dict[Path, str]:
    """Verify and repair one corpus of params.yaml; return what remains."""
    from storage.index import INDEX_NAME
    from storage.manifest import read_manifest
    from storage.store import store_root
    from storage.verification import rebuild_index, store_folder

    folder = workspace.features(name)
    if not folder.is_dir() and not needed:
        echo(f"{name}: not extracted")
        return {}
    homes = {view: store_folder(view, store_root()) for view in views_in(folder)}
    remaining = _verify(folder, repair)
    if not (remaining and repair):
        return remaining
    for view, home in homes.items():
        damaged = [path for path in remaining if path.parent == view]
        if home is not None and damaged == [view / INDEX_NAME]:
            rebuild_index(view, home, read_manifest(workspace.manifest(name)), echo)
            echo(f"{damaged[0]}: put together from the sidecars")
            del remaining[damaged[0]]
    if remaining:
        _extract(name)
        remaining = _verify(folder, repair=False)
    return remaining


def _extract(name: str) -> None:
    """Extract what a corpus of params.yaml lacks."""
    from pipeline.console import ConsoleReporter
    from stages.extract.run import run
    from storage.index import write_contents
    from storage.manifest import read_manifest
    from storage.store import project_root, store_root

    params = workspace.project_params()
    corpus, features = workspace.study_corpus(params, name), workspace.features(name)
    summary = run(
        corpus=name,
        root=corpus.root,
        reals=corpus.reals,
        manifest=read_manifest(workspace.manifest(name)),
        settings=params.extract,
        geometry=corpus.settings.geometry,
        views=corpus.settings.views,
        store=store_root(),
        owner=project_root(),
        out=features,
        reporter=ConsoleReporter(),
    )
    write_contents(features, workspace.contents(name))
    echo(f"{name}: {summary.extracted} images extracted again")


def _verify(folder: Path, repair: bool) -> dict[Path, str]:
    """Verify all views in a folder, restore what the store can, say what was found; return what remains."""
    from storage.store import store_root
    from storage.verification import faults, restore_from_store, store_folder

    remaining: dict[Path, str] = {}
    for view in views_in(folder):
        found = faults(view)
        echo(f"{view}: {len(found)} damaged files" if found else f"{view}: sound")
        for path, fault in found.items():
            echo(f"  {path} {fault}")
        if found and repair:
            cache = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "cache")
            left = restore_from_store(found, store_folder(view, store_root()), [cache], echo)
            for path in found:
                echo(f"  {path}: {'no sound copy, removed' if path in left else 'restored'}")
            found = left
        remaining |= found
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

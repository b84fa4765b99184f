"""The feature store: what lies in it, and what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import workspace
from pipeline.commands.arguments import echo

if TYPE_CHECKING:
    from storage.corpus_folder import CorpusFolder


@click.group()
def store() -> None:
    """The feature store: finished shards by feature key. Published features are hard links into it."""


@store.command("ls")
def store_ls() -> None:
    """List keys with their settings, and each corpus's size, images and whether it is linked from elsewhere."""
    from storage.store import store_root, stored_corpora, usage

    total = linked = 0
    shown = None
    for folder in stored_corpora(store_root()):
        key = folder.directory.parent.name
        if key != shown:
            shown = key
            echo(f"{key}  {folder.describe()}")
        echo(f"  {folder.corpus}: {_contents(folder)}")
        size, from_elsewhere = usage(folder)
        total, linked = total + size, linked + from_elsewhere
    echo(f"{store_root()}: {_size(total)}, of which {_size(total - linked)} are linked from nowhere else")


@store.command("prune")
@click.option("--yes", is_flag=True, help="Delete; without it, only show what would be deleted.")
@click.option("--owner", help="Delete what belongs to another project or image folder, as `ltdpipe store ls` shows it.")
def store_prune(*, yes: bool, owner: str | None) -> None:
    """Show what this project no longer needs in the store and what that would free; with --yes, delete it.

    Kept are what belongs to other projects and to folders extracted by hand, features that are published or in the DVC
    cache (linked, or of the key of a published copy), unfinished work of the corpora in params.yaml, and what a process
    extracts into now. `dvc gc` releases old versions. States of stopped trainings go when they are a week old.
    """
    from storage.atomic import remove
    from storage.store import (
        abandoned_trainings,
        delete,
        is_own_store,
        project_root,
        reason_to_keep,
        store_root,
        stored_corpora,
        training_folder,
        usage,
    )

    published, corpora = _published_keys(), _corpora() if owner is None else set()
    whose, own_store = owner or str(project_root()), is_own_store(store_root(), project_root())
    verb = "deleted" if yes else "would delete"
    freed = 0
    for folder in stored_corpora(store_root()):
        name = f"{folder.directory.parent.name}/{folder.corpus}: {_contents(folder)}"
        size = usage(folder)[0]
        reason = reason_to_keep(folder, published=published, corpora=corpora, owner=whose, own_store=own_store)
        if reason is None and yes and not delete(folder):
            reason = "a process extracts into it"
        if reason is not None:
            echo(f"kept {name}; {reason}")
            continue
        echo(f"{verb} {name}")
        freed += size
    for state in abandoned_trainings(training_folder()):
        size = state.stat().st_size
        if yes:
            remove(state)
        echo(f"{verb} {state}: {_size(size)}, a training stopped more than a week ago")
        freed += size
    echo(f"{_size(freed)} {'freed' if yes else 'would be freed; --yes deletes'}")


def _contents(folder: CorpusFolder) -> str:
    from storage.index import INDEX_NAME
    from storage.store import usage

    failed = folder.rows["row"].null_count
    size, linked = usage(folder)
    parts = [f"{len(folder.rows) - failed} images", f"{len(folder.shards)} shards", _size(size)]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"damaged: {', '.join(path.name for path in folder.faults)}"] if folder.faults else []
    parts += ["linked"] if linked else []
    parts += [] if (folder.directory / INDEX_NAME).exists() else ["unfinished"]
    parts += [f"of {folder.owner}"] if folder.owner else []
    return ", ".join(parts)


def _published_keys() -> set[str]:
    """Return the keys of all features that lie published in the project."""
    from storage.errors import DataError
    from storage.index import read_index

    keys = set()
    for path in workspace.features("x").parent.glob("*/*/index.parquet"):
        try:
            keys.add(read_index(path).spec.key)
        except DataError as error:
            echo(f"warning: {error}", err=True)
    return keys


def _corpora() -> set[str]:
    """Return the corpora of params.yaml; none where there is no such file, as outside a project."""
    return set(workspace.project_params().corpora) if workspace.PARAMS.exists() else set()


def _size(size: float) -> str:
    """Spell a number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

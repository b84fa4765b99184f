"""The feature store: what lies in it, and what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import workspace
from pipeline.commands.arguments import echo

if TYPE_CHECKING:
    from storage.inventory import StoredCorpus


@click.group()
def store() -> None:
    """The feature store: finished shards by feature key. Published features are hard links into it."""


@store.command("ls")
def store_ls() -> None:
    """List keys with their settings, and each corpus's size, images and whether it is linked from elsewhere."""
    from storage.inventory import stored_corpora
    from storage.store import store_root

    entries = stored_corpora(store_root())
    key = None
    for entry in entries:
        if entry.key != key:
            key = entry.key
            echo(f"{key}  {entry.spec.describe() if entry.spec else 'settings unknown: no readable sidecar'}")
        echo(f"  {entry.corpus}: {_contents(entry)}")
    total, linked = (sum(getattr(entry, name) for entry in entries) for name in ("size_bytes", "linked_bytes"))
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
    from storage.inventory import abandoned_trainings, delete, disposable, stored_corpora
    from storage.store import is_own_store, project_root, store_root, training_folder

    published, corpora = _published_keys(), _corpora() if owner is None else set()
    whose, own_store = owner or str(project_root()), is_own_store(store_root(), project_root())
    verb = "deleted" if yes else "would delete"
    freed = 0
    for entry in stored_corpora(store_root()):
        reason = disposable(entry, published=published, corpora=corpora, owner=whose, own_store=own_store)
        if reason is not None:
            echo(f"kept {entry.key}/{entry.corpus}: {_contents(entry)}; {reason}")
            continue
        if yes and not delete(entry):
            echo(f"kept {entry.key}/{entry.corpus}: {_contents(entry)}; a process extracts into it")
            continue
        echo(f"{verb} {entry.key}/{entry.corpus}: {_contents(entry)}")
        freed += entry.size_bytes
    for state in abandoned_trainings(training_folder()):
        size = state.stat().st_size
        if yes:
            remove(state)
        echo(f"{verb} {state}: {_size(size)}, a training stopped more than a week ago")
        freed += size
    echo(f"{_size(freed)} {'freed' if yes else 'would be freed; --yes deletes'}")


def _contents(entry: StoredCorpus) -> str:
    rows = entry.finished.rows
    failed = rows["row"].null_count
    parts = [f"{len(rows) - failed} images", f"{len(entry.finished.shards)} shards", _size(entry.size_bytes)]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"damaged: {', '.join(entry.damaged)}"] if entry.damaged else []
    parts += ["linked"] if entry.linked_bytes else []
    parts += [] if entry.complete else ["unfinished"]
    parts += [f"of {entry.owner}"] if entry.owner else []
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

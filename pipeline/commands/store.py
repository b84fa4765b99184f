"""What is extracted: how far, whether it is sound, and what of the store may go."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, corpus_option, echo, refuse_both
from storage.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from storage.corpus_folder import CorpusFolder


@click.command()
@click.argument("folder", required=False, type=PATH)
@corpus_option
def status(*, folder: Path | None, corpus: str | None) -> None:
    """Say for each corpus of params.yaml what is extracted, what failed, what is missing, and how long it takes.

    Or what FOLDER holds, as `ltdpipe extract FOLDER --out` wrote it; that needs no params.yaml.

    Counted are the images of the manifest, in every view and under every feature key that the store holds work for;
    the time left comes from when the last shards were finished. No backbone is loaded and no shard is read. The image
    folder is listed again, unless it is remote: images that came, went or changed since `ltdpipe scan` are counted.
    """
    from pipeline.extraction import since_the_scan
    from storage.manifest import read_manifest
    from storage.published import views_in
    from storage.store import project_root, store_root, stored_corpora

    if folder is not None:
        refuse_both(folder, corpus)
        for view in views_in(folder):
            echo(_published(view))
        return
    params = workspace.project_params()
    for name in [corpus] if corpus else params.corpora:
        workspace.defined(params.corpora, name, "corpora")
        if not workspace.manifest(name).exists():
            echo(f"{name}: no manifest yet; `ltdpipe scan --corpus {name}` makes it")
            continue
        manifest = read_manifest(workspace.manifest(name))
        echo(f"{name}: {len(manifest)} images in the manifest")
        with suppress(DataError):  # the images are not at hand
            if change := since_the_scan(workspace.study_corpus(params, name), manifest):
                echo(f"  {change}")
        stored = stored_corpora(store_root(), name, project_root())
        for each in stored:
            echo(f"  {_progress(each, manifest)}")
        views = sorted(workspace.features(name).glob("*/")) if workspace.features(name).is_dir() else []
        for view in views:
            echo(f"  {_published(view, manifest)}")
        if not stored and not views:
            echo(f"  nothing extracted yet; `ltdpipe extract --corpus {name}` does it")


def _progress(folder: CorpusFolder, manifest: pa.Table) -> str:
    """Describe a folder of the store against the manifest."""
    import numpy as np
    import pyarrow.compute as pc

    from storage import unfinished
    from storage.atomic import lock_holder
    from storage.store import images_per_second

    located = folder.locate(manifest)
    unfound = manifest["path"].filter(located < 0)
    missing, failed, is_known = len(unfound), 0, np.zeros(len(unfound), bool)
    for first, rows in folder.rows("path", "row"):
        at = located[(first <= located) & (located < first + len(rows))] - first
        failed += rows["row"].take(at).null_count
        is_known |= pc.is_in(unfound, value_set=rows["path"]).to_numpy()
    touched = np.count_nonzero(is_known)
    parts = [f"{len(manifest) - missing - failed} done", f"{failed} failed", f"{missing - touched} missing"]
    if missing and (kept := unfinished.count(folder)):
        parts[-1] += f" ({kept} kept in unfinished shards)"
    parts += [f"{touched} touched since (another size or time), to be made again"] if touched else []
    parts += [f"damaged: {', '.join(path.name for path in folder.faults)}"] if folder.faults else []
    rate = images_per_second(folder)
    if missing and rate:
        parts.append(f"{missing / rate:.0f} s left at {rate:.1f} images/s")
    process = lock_holder(folder.directory)
    parts.append("not running" if process is None else f"process {process} is at work")
    return f"store {folder.directory.parent.name[:8]}: {', '.join(parts)} ({folder.describe()})"


def _published(view: Path, manifest: pa.Table | None = None) -> str:
    """Describe one published view, against the manifest where there is one."""
    from storage.index import read_index

    try:
        index = read_index(view / "index.parquet")
    except DataError as error:
        return f"{view}: {error}"
    failed = index.table["row"].null_count
    stale = manifest is not None and not index.table.select(manifest.column_names).equals(manifest)
    fits = "; the manifest has changed since, extract again" if stale else ""
    return f"{view}: {len(index.table) - failed} done, {failed} failed, key {index.spec.key[:8]}{fits}"


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
    if folder is not None:
        refuse_both(folder, corpus)
        remaining = _verify(folder, repair)
        again = shlex.join(["ltdpipe", "verify", str(folder), "--repair"])
        if remaining and repair:
            raise DataError(
                f"{len(remaining)} files of {folder} have no sound copy and were removed; run the `ltdpipe extract` "
                "command that made the folder again: it makes these shards and no others"
            )
    else:
        remaining, again = {}, "ltdpipe verify --repair"
        corpora = workspace.project_params().corpora
        for name in [corpus] if corpus else corpora:
            workspace.defined(corpora, name, "corpora")
            if corpus is None and not workspace.features(name).is_dir():
                echo(f"{name}: not extracted")
            else:
                remaining |= _verify_corpus(name, repair)
    if remaining:
        raise DataError(f"{len(remaining)} files are damaged; `{again}` restores them")


def _verify_corpus(name: str, repair: bool) -> dict[Path, str]:
    """Verify and repair one corpus of params.yaml; return what remains."""
    from pipeline.console import ConsoleReporter
    from pipeline.extraction import extract_corpus
    from storage.manifest import read_manifest

    manifest = read_manifest(workspace.manifest(name)) if repair and workspace.manifest(name).exists() else None
    remaining = _verify(workspace.features(name), repair, manifest)
    if remaining and repair:
        params = workspace.project_params()
        summary = extract_corpus(workspace.study_corpus(params, name), params.extract, ConsoleReporter())
        echo(f"{name}: {summary.extracted} images extracted again")
        remaining = _verify(workspace.features(name), repair=False)
    return remaining


def _verify(folder: Path, repair: bool, manifest: pa.Table | None = None) -> dict[Path, str]:
    """Verify all views in a folder, restore what the store can, say what was found; return what remains."""
    from storage import published
    from storage.store import store_root

    remaining: dict[Path, str] = {}
    for view in published.views_in(folder):
        found = published.faults(view)
        echo(f"{view}: {len(found)} damaged files" if found else f"{view}: sound")
        for path, fault in found.items():
            echo(f"  {path} {fault}")
        if found and repair:
            cache = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "cache")
            found = published.repair(found, published.store_folder(view, store_root()), [cache], echo, manifest)
        remaining |= found
    return remaining


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
    extracts into now. `dvc gc` releases old versions. States of stopped trainings, and heads and scores that are linked
    nowhere, go when they are a week old.
    """
    from storage.atomic import remove
    from storage.store import (
        abandoned,
        delete,
        finished_folder,
        is_own_store,
        project_root,
        reason_to_keep,
        store_root,
        stored_corpora,
        training_folder,
        usage,
    )

    published, corpora = _published_keys(), set[str]()
    if owner is None and workspace.PARAMS.exists():
        corpora = set(workspace.project_params().corpora)
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
    for kept, what in (
        (training_folder(), "a training stopped"),
        (finished_folder("heads"), "a head made"),
        (finished_folder("scores"), "scores made"),
    ):
        for file in abandoned(kept):
            size = file.stat().st_size
            if yes:
                remove(file)
            echo(f"{verb} {file}: {_size(size)}, {what} more than a week ago")
            freed += size
    echo(f"{_size(freed)} {'freed' if yes else 'would be freed; --yes deletes'}")


def _contents(folder: CorpusFolder) -> str:
    from storage.index import INDEX_NAME
    from storage.store import usage

    failed = sum(rows["row"].null_count for _, rows in folder.rows("row"))
    size, linked = usage(folder)
    parts = [f"{sum(folder.images.values()) - failed} images", f"{len(folder.shards)} shards", _size(size)]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"damaged: {', '.join(path.name for path in folder.faults)}"] if folder.faults else []
    parts += ["linked"] if linked else []
    parts += [] if (folder.directory / INDEX_NAME).exists() else ["unfinished"]
    parts += [f"of {folder.owner}"] if folder.owner else []
    return ", ".join(parts)


def _published_keys() -> set[str]:
    """Return the keys of all features that lie published in the project."""
    from storage.index import read_index

    keys = set()
    for path in workspace.features("x").parent.glob("*/*/index.parquet"):
        try:
            keys.add(read_index(path).spec.key)
        except DataError as error:
            echo(f"warning: {error}", err=True)
    return keys


def _size(size: float) -> str:
    """Spell a number of bytes for people."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = next((power for power in range(4) if size < 1000 ** (power + 1)), 4)
    return f"{size / 1000**power:.{min(power, 1)}f} {units[power]}"

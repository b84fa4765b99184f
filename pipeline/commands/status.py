"""How far extraction is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, corpus_option, echo, refuse_both
from pipeline.commands.verify import views_in
from storage.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from storage.corpus_folder import CorpusFolder


@click.command()
@click.argument("folder", required=False, type=PATH)
@corpus_option
def status(*, folder: Path | None, corpus: str | None) -> None:
    """Say for each corpus of params.yaml what is extracted, what failed, what is missing, and how long it takes.

    Or what FOLDER holds, as `ltdpipe extract FOLDER --out` wrote it; that needs no params.yaml.

    Counted are the images of the manifest, in every view and under every feature key that the store holds work for;
    the time left comes from when the last shards were finished. No backbone is loaded and no shard is read.
    """
    from storage.manifest import read_manifest
    from storage.store import project_root, store_root, stored_corpora

    if folder is not None:
        refuse_both(folder, corpus)
        for view in views_in(folder):
            echo(_published(view))
        return
    corpora = workspace.project_params().corpora
    for name in [corpus] if corpus else corpora:
        workspace.defined(corpora, name, "corpora")
        if not workspace.manifest(name).exists():
            echo(f"{name}: no manifest yet; `ltdpipe scan --corpus {name}` makes it")
            continue
        manifest = read_manifest(workspace.manifest(name))
        echo(f"{name}: {len(manifest)} images in the manifest")
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
    import pyarrow.compute as pc

    from storage.locks import lock_holder
    from storage.store import images_per_second

    located = folder.locate(manifest)
    missing = located.null_count
    failed = folder.rows["row"].take(located.drop_null()).null_count
    unfound = manifest["path"].filter(pc.is_null(located))
    touched = pc.sum(pc.is_in(unfound, value_set=folder.rows["path"]), min_count=0).as_py()
    parts = [f"{len(manifest) - missing - failed} done", f"{failed} failed", f"{missing - touched} missing"]
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

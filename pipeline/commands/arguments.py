"""Options and look-ups that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from pipeline import paths
from storage import names
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.params import Params

T = TypeVar("T")

PATH = click.Path(path_type=Path)
corpus_option = click.option("--corpus", metavar="NAME", help="A corpus of params.yaml.")

trained_on_option = click.option(
    "--trained-on",
    "learnt_from",
    metavar="NAME",
    help="The corpus a head is trained on; not needed where params.yaml names one only.",
)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print lines whose names may hold anything, spelling out what a terminal would obey instead of show."""
    click.echo("\n".join(map(names.printable, text.split("\n"))), err=err, nl=nl)


def trained_on(params: Params, name: str | None) -> str:
    """Return the corpus that a head is trained on: the one named, or the only one of the study.

    Raises:
        SettingError: the study does not train on it, or trains on several and none is named.
    """
    listed = ", ".join(params.train_on)
    if name is None and len(params.train_on) > 1:
        raise SettingError(f"this command needs --trained-on, one of {listed}")
    if name is not None and name not in params.train_on:
        raise SettingError(f"--trained-on {name!r} is not in `train_on` of {paths.PARAMS}; it has {listed}")
    return name or params.train_on[0]


def project_params() -> Params:
    """Read and validate the project's params.yaml."""
    from pipeline.params import load_params

    return load_params(paths.PARAMS)


def defined(entries: dict[str, T], name: str, section: str) -> T:
    """Return an entry of a section of params.yaml.

    Raises:
        SettingError: there is none of that name; the message lists those that are there.
    """
    if name not in entries:
        raise SettingError(
            f"{name!r} is not in `{section}` of {paths.PARAMS}; it has {', '.join(entries) or 'nothing'}"
        )
    return entries[name]


def corpus_name(given: str | None, folder: str | Path) -> str:
    """Return the name of a corpus that is no part of params.yaml: the one given, or that of its folder or archive.

    It becomes a folder's name in the store.

    Raises:
        SettingError: it cannot be a folder's name, or the folder has none.
    """
    name = names.to_text(os.path.basename(os.path.abspath(folder))) if given is None else given  # noqa: PTH100, PTH119 - `..`
    if name in {"", ".", ".."} or "/" in name:
        raise SettingError(f"{name!r} cannot name a corpus; give a name without slashes with --corpus NAME")
    return name


def refuse_idle(options: Mapping[str, object]) -> None:
    """Refuse options of a FOLDER that were given without one: with --corpus they would do nothing.

    Raises:
        SettingError: one of them has a value.
    """
    idle = [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, False, ())]
    if idle:
        raise SettingError(
            f"{', '.join(idle)} needs a FOLDER; with --corpus it would do nothing, edit {paths.PARAMS} instead"
        )


def refuse_both(folder: Path, corpus: str | None) -> None:
    """Refuse a corpus of params.yaml beside a folder, which would be left unread.

    Raises:
        SettingError: a corpus is named.
    """
    if corpus is not None:
        raise SettingError(f"both the folder {folder} and --corpus {corpus} were given, expected one; leave one out")


def refuse_overwriting(out: Path | None, *inputs: Path | None) -> None:
    """Refuse an output that is one of the inputs, or lies in a folder of them.

    Raises:
        SettingError: it does.
    """
    places = set() if out is None else {out.resolve(), *out.resolve().parents}
    for given in inputs:
        if given is not None and given.exists() and given.resolve() in places:
            raise SettingError(f"the output {out} would overwrite the input {given}; name another file")


def needed(value: T | None, what: str) -> T:
    """Return an option's value.

    Raises:
        SettingError: it was not given.
    """
    if value is None:
        raise SettingError(f"this command needs {what}; see --help")
    return value

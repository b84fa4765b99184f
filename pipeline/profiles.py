"""Profiles: whole studies ready to run, kept as ``profiles/NAME.yaml`` and put to use as ``params.yaml``."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pipeline.params import Params, settings_from
from pipeline.yaml_values import load_yaml
from storage.atomic import write_text
from storage.errors import SettingError

PROFILES = Path("profiles")
# Begins the first line of a parameter file that was made from a profile with changes; the hash of the rest follows.
_MADE = "# made by `ltdpipe profile use`, sha256 of what follows: "


def profile_names() -> list[str]:
    """Return the names of all profiles of this project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_path(name: str) -> Path:
    """Return a profile's file.

    Raises:
        SettingError: there is no such profile.
    """
    if name not in profile_names():
        known = ", ".join(profile_names()) or f"none: {PROFILES.resolve()} holds no profile"
        raise SettingError(f"profile {name!r} does not exist; choose from {known}")
    return PROFILES / f"{name}.yaml"


def profile_text(name: str, assignments: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> str:
    """Return the text of a parameter file: a profile as it is, or with changes.

    Args:
        name: of the profile.
        assignments: ``key.path=value`` each; the value is YAML.
        without: corpora that are left out.

    Raises:
        SettingError: no such profile, or an assignment is none.
    """
    text = profile_path(name).read_text(encoding="utf-8")
    if not assignments and not without:
        return text
    content = load_yaml(text)
    for assignment in assignments:
        _assign(content, assignment)
    for corpus in without:
        del content["corpora"][corpus]
        content["evaluate"]["corpora"] = [name for name in content["evaluate"]["corpora"] if name != corpus]
    body = yaml.safe_dump(content, sort_keys=False, width=120)
    return f"{_MADE}{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def validated(text: str, source: str) -> Params:
    """Validate the text of a parameter file.

    Raises:
        SettingError: something in it is wrong; one line a fault.
    """
    return settings_from(Params, load_yaml(text), source=f"{source}: ")


def check_replaceable(params: Path) -> None:
    """Refuse to overwrite a parameter file whose edits are neither committed nor those of a profile.

    Raises:
        SettingError: edits would be lost.
    """
    if params.exists() and _would_lose_edits(params):
        raise SettingError(
            f"{params} has edits that are not committed; commit them, save them as profiles/NAME.yaml, "
            "or overwrite them with --force"
        )


def write_params(text: str, params: Path) -> None:
    """Write a parameter file."""
    write_text(params, text)


def _assign(content: dict[str, Any], assignment: str) -> None:
    key, equals, value = assignment.partition("=")
    *parents, last = key.split(".")
    if not equals or not last:
        raise SettingError(
            f"--set {assignment!r}: expected KEY=VALUE, as in train.epochs=2 or extract.backbone=demo-vit"
        )
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise SettingError(f"--set {assignment!r}: {parent!r} holds no keys")
    try:
        place[last] = load_yaml(value)
    except yaml.YAMLError as error:
        raise SettingError(f"--set {assignment!r}: {value!r} is no YAML value") from error


def _would_lose_edits(params: Path) -> bool:
    text = params.read_text(encoding="utf-8")
    if any(text == profile_path(name).read_text(encoding="utf-8") for name in profile_names()):
        return False
    first, _, body = text.partition("\n")
    if first == _MADE + hashlib.sha256(body.encode()).hexdigest():
        return False
    committed = subprocess.run(
        ["git", "show", f"HEAD:./{params.as_posix()}"], capture_output=True, text=True, check=False
    )
    return committed.returncode != 0 or committed.stdout != text

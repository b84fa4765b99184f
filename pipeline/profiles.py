"""Profiles: whole studies ready to run, kept as ``profiles/NAME.yaml`` and put to use as ``params.yaml``."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import yaml

from pipeline.validation import load_yaml, parsed_assignment
from storage.errors import SettingError

PROFILES = Path("profiles")
# Begins the first line of a parameter file that was made from a profile with changes; the hash of the rest follows.
_MADE = "# made by `ltdpipe profile use`, sha256 of what follows: "


def profile_names() -> list[str]:
    """Return the names of all profiles of this project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_text(name: str, assignments: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> str:
    """Return the text of a parameter file: a profile as it is, or with changes.

    Args:
        name: of the profile.
        assignments: ``key.path=value`` each; the value is YAML.
        without: corpora that are left out.

    Raises:
        SettingError: no such profile, or an assignment is none.
    """
    if name not in profile_names():
        known = ", ".join(profile_names()) or f"none: {PROFILES.resolve()} holds no profile"
        raise SettingError(f"profile {name!r} does not exist; choose from {known}")
    path = PROFILES / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    if not assignments and not without:
        return text
    content = load_yaml(text, str(path))
    for assignment in assignments:
        key, value = parsed_assignment(assignment, "--set")
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SettingError(f"--set {assignment!r}: {parent!r} holds no keys")
        place[last] = value
    for corpus in without:
        del content["corpora"][corpus]
        content["evaluate"]["corpora"] = [name for name in content["evaluate"]["corpora"] if name != corpus]
    body = yaml.safe_dump(content, sort_keys=False, width=120)
    return f"{_MADE}{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def check_replaceable(params: Path) -> None:
    """Refuse to overwrite a parameter file whose edits are neither committed nor those of a profile.

    Raises:
        SettingError: edits would be lost.
    """
    if not params.exists():
        return
    text = params.read_text(encoding="utf-8")
    first, _, body = text.partition("\n")
    committed = ["git", "show", f"HEAD:./{params.as_posix()}"]
    if (
        first != _MADE + hashlib.sha256(body.encode()).hexdigest()
        and all(text != profile_text(name) for name in profile_names())
        and subprocess.run(committed, capture_output=True, text=True, check=False).stdout != text
    ):
        raise SettingError(
            f"{params} has edits that are not committed; commit them, save them as profiles/NAME.yaml, "
            "or overwrite them with --force"
        )

"""Profiles: whole studies ready to run, kept as ``profiles/NAME.yaml`` and put to use as ``params.yaml``."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.params import load_params
from storage.atomic import write_text
from storage.errors import SettingError

PROFILES = Path("profiles")


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


def use_profile(name: str, params: Path, *, force: bool) -> None:
    """Write a profile to ``params``.

    Args:
        name: of the profile.
        params: the parameter file, usually params.yaml.
        force: also over edits that are neither committed nor a profile as it is.

    Raises:
        SettingError: no such profile, the profile is not valid, or edits would be lost.
    """
    source = profile_path(name)
    load_params(source)
    text = source.read_text(encoding="utf-8")
    if params.exists() and not force and _would_lose_edits(params):
        raise SettingError(
            f"{params} has edits that are not committed; commit them, save them as profiles/NAME.yaml, "
            "or overwrite them with --force"
        )
    write_text(params, text)


def _would_lose_edits(params: Path) -> bool:
    text = params.read_text(encoding="utf-8")
    if any(text == profile_path(name).read_text(encoding="utf-8") for name in profile_names()):
        return False
    committed = subprocess.run(
        ["git", "show", f"HEAD:./{params.as_posix()}"], capture_output=True, text=True, check=False
    )
    return committed.returncode != 0 or committed.stdout != text

"""YAML as people and DVC write it: 1e-4 is a number, though YAML 1.1, which PyYAML reads, asks for 1.0e-4."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _YamlNumbers(yaml.SafeLoader):
    """The safe loader, with numbers in powers of ten."""


_YamlNumbers.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, _YamlNumbers)  # noqa: S506 - a safe loader

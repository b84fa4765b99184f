"""A name for what a stage makes: a hash over all that decides its bytes, the code that makes it too.

What is finished lies in the store under such a name. A stage makes what is not there, so that a head, a seed or a view
more costs no more than itself, and an edit of the code that trains makes every head anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# The code that decides what a head computes.
HEAD_CODE = tuple(
    f"stages/heads/{name}.py" for name in ("file", "head", "linear", "ltd", "machine", "rine", "settings")
)
_PROJECT = Path(__file__).parents[1]


def recipe(facts: Any, code: Iterable[str]) -> str:
    """Return 32 hex digits that stand for ``facts``, plain JSON, and for the bytes of some modules.

    Args:
        facts: what is made, from what, and how.
        code: modules and folders of modules, as ``deps:`` of dvc.yaml spells them.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in code:
        path = _PROJECT / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]

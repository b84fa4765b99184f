"""Unfinished training on disk, so that a stopped run resumes after the last epoch that was written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from storage.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor


class Checkpoint:
    """One file, atomically replaced after each epoch; reading it executes nothing.

    Args:
        path: the file; its name stands for everything that decides the training, so that no other run reads it.
        notify: receives a one-line message on resume or on an unusable file.
    """

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        self._path, self._notify = path, notify

    def save(self, history: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor]) -> None:
        """Write the epochs so far, and all that the next one depends on.

        Raises:
            ResourceError: the disk is full or may not be written to.
        """
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        with atomic_path(self._path) as partial:
            try:
                save_file(tensors, partial, {"history": json.dumps(history)})
            except SafetensorError as error:  # the system's reason is in its text alone
                reason = re.search(r"\(os error ([0-9]+)\)", str(error))
                raise OSError(int(reason[1]) if reason else 0, str(error)) from error

    def load(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]] | None:
        """Return what was saved last; None where there is nothing, or nothing usable."""
        try:
            with safe_open(self._path, framework="pt") as file:
                history = json.loads(file.metadata()["history"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            self._notify(f"training starts over: {self._path} cannot be read ({str(error).splitlines()[0]})")
            return None
        self._notify(f"training resumes after epoch {history[-1]['epoch']}, kept in {self._path}")
        return history, state

    def remove(self) -> None:
        """Delete the file: the training is finished."""
        self._path.unlink(missing_ok=True)

"""Unfinished training on disk, so that a stopped run resumes after the last epoch that was written."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from storage.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor
    from torch.optim import AdamW

    from stages.heads.head import Head


class Checkpoint:
    """One file, atomically replaced after each epoch; reading it executes nothing.

    Args:
        path: the file; its name stands for everything that decides the training, so that no other run reads it.
        notify: receives a one-line message on an unusable file and, with ``announce``, on resume.
        announce: whether resuming is worth a message.
    """

    def __init__(self, path: Path, notify: Callable[[str], None], *, announce: bool = True) -> None:
        self._path, self._notify, self._announce = path, notify, announce

    def save(
        self, history: Sequence[Mapping[str, Any]], head: Head, optimizer: AdamW, best: Mapping[str, Tensor]
    ) -> None:
        """Write the epochs so far, the weights of the best one, and all that the next one depends on.

        Raises:
            ResourceError: the disk is full or may not be written to.
        """
        state = {f"head.{name}": weight for name, weight in head.state_dict().items()}
        state |= {f"best.{name}": weight for name, weight in best.items()}
        for number, moments in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        state["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["random.cuda"] = torch.cuda.get_rng_state()
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        with atomic_path(self._path) as partial:
            try:
                save_file(tensors, partial, {"history": json.dumps(history)})
            except SafetensorError as error:  # the system's reason is in its text alone
                reason = re.search(r"\(os error ([0-9]+)\)", str(error))
                raise OSError(int(reason[1]) if reason else 0, str(error)) from error

    def restore(self, head: Head, optimizer: AdamW) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """Put head, optimizer and random state back to what was saved last.

        Returns:
            The epochs so far and the weights of the best one; both empty, and nothing changed, without a usable file.
        """
        state: dict[str, dict[str, Tensor]] = defaultdict(dict)
        try:
            with safe_open(self._path, framework="pt") as file:
                history: list[dict[str, Any]] = json.loads(file.metadata()["history"])
                for name in file.keys():  # noqa: SIM118 - no mapping
                    part, _, rest = name.partition(".")
                    state[part][rest] = file.get_tensor(name)
        except FileNotFoundError:
            return [], {}
        except (SafetensorError, OSError) as error:
            self._notify(f"training starts over: {self._path} cannot be read ({str(error).splitlines()[0]})")
            return [], {}
        moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in state["optimizer"].items():
            number, _, kind = name.partition(".")
            moments[int(number)][kind] = tensor
        head.load_state_dict(state["head"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"])
        if self._announce:
            self._notify(f"training resumes after epoch {history[-1]['epoch']}, kept in {self._path}")
        return history, state["best"]

    def remove(self) -> None:
        """Delete the file: the training is finished."""
        self._path.unlink(missing_ok=True)

"""Unfinished training on disk, so that a run that was stopped goes on at the last epoch that was kept."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stages.train.loop import Epoch
from storage.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stages.train.loop import Run

# Writing may take this share of the time of training: a head of ViT-L/14 is 200 MB with its optimizer.
_SHARE = 0.05
_BYTES_A_SECOND = 200e6  # what a disk is taken to write until the first time has been measured


class Checkpoint:
    """One file, atomically replaced; read without executing anything.

    Args:
        path: the file; its name stands for everything that decides the training, so that no other run finds it.
        note: told in one line that training goes on, or that a file was of no use.
        every: seconds of training between two files, None: as many as keep the writing below 5 % of the time. What a
            stop costs is at most this, and the epoch that was under way.
    """

    def __init__(self, path: Path, note: Callable[[str], None], every: float | None = None) -> None:
        self._path, self._note, self._every = path, note, every
        self._last = time.monotonic()
        self._cost: float | None = None

    def save(self, run: Run) -> None:
        """Keep the state after an epoch, unless the last one was kept a moment ago."""
        # the weights, the best ones and the two moments of each
        size = 4 * sum(tensor.nbytes for tensor in run.head.state_dict().values())
        cost = size / _BYTES_A_SECOND if self._cost is None else self._cost
        began = time.monotonic()
        if began - self._last < (cost / _SHARE if self._every is None else self._every):
            return
        history = json.dumps([asdict(epoch) for epoch in run.history])
        tensors = {name: tensor.contiguous() for name, tensor in _tensors(run).items()}
        with atomic_path(self._path) as partial:
            try:
                save_file(tensors, partial, {"history": history})
            except SafetensorError as error:  # the system's reason is in its text alone
                reason = re.search(r"\(os error ([0-9]+)\)", str(error))
                raise OSError(int(reason[1]) if reason else 0, str(error)) from error
        self._last = time.monotonic()
        self._cost = self._last - began

    def restore(self, run: Run) -> bool:
        """Put ``run`` and torch's random state back to what was kept; False where there is nothing to go on with."""
        try:
            with safe_open(self._path, framework="pt") as file:
                history = json.loads(file.metadata()["history"])
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            _put_back(run, kept)
        except FileNotFoundError:
            return False
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            self._note(f"training starts anew: {self._path} is of no use ({str(error).splitlines()[0]})")
            return False
        run.history[:] = [Epoch(**epoch) for epoch in history]
        self._note(f"training goes on after epoch {run.history[-1].epoch}, kept in {self._path}")
        return True

    def remove(self) -> None:
        """Forget the run: it is finished."""
        self._path.unlink(missing_ok=True)


def _tensors(run: Run) -> dict[str, torch.Tensor]:
    tensors = {f"head.{name}": tensor for name, tensor in run.head.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.kept().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in run.optimizer.state().items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _put_back(run: Run, kept: dict[str, torch.Tensor]) -> None:
    parts: dict[str, dict[str, torch.Tensor]] = {"head": {}, "best": {}, "optimizer": {}, "random": {}}
    for name, tensor in kept.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    # what is missing is found out before anything of the run is changed
    state = [(tensor, parts["optimizer"][name]) for name, tensor in run.optimizer.state().items()]
    random = parts["random"]["cpu"]
    fresh = {name: tensor.clone() for name, tensor in run.head.state_dict().items()}
    try:
        run.head.load_state_dict(parts["best"])  # checked before anything is kept of the file
        run.head.load_state_dict(parts["head"])
    except RuntimeError:
        run.head.load_state_dict(fresh, strict=True)
        raise
    for tensor, was in state:
        tensor.copy_(was)
    run.best.keep(parts["best"])
    torch.set_rng_state(random)
    if "cuda" in parts["random"]:
        torch.cuda.set_rng_state(parts["random"]["cuda"])

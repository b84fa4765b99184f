"""Loader processes: decoding beside the backbone, pixels over shared memory, results in the order asked for.

Why not torch's DataLoader: its workers import torch, need room in /dev/shm and a file descriptor a tensor, and stay
behind or hang when one side is killed. Why not multiprocessing's pools: they run the user's main module again, are
refused inside Dask's workers, and break when a decoder crashes. Here a loader is a small program of its own, the shared
memory has no name and no file that could be left behind, and either side's death closes the socket between them.

A loader gets a ``ReadSpec``, then (number, slot, ``Task``) messages, and answers (number, usable, ``ReadResult``); the
pixels lie in that slot of the shared memory.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import deque
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.extract.read_image import NO_METADATA, ReadResult, ReadSpec, Task, read_image
from storage.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

_TRIES = 2  # an image whose loader dies this often is recorded as failed
_SECONDS_TO_END = 5.0
# Tasks a loader has at most. Its answers to all of them fit the socket's buffer, so that it never waits for us to read
# them while we wait for it to take the next task; and they are more than it reads during a batch on a GPU.
_MOST_WAITING = 96
# One thread a loader: BLAS and OpenMP threads of many loaders would fight for the cores.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextmanager
def open_loaders(spec: ReadSpec, count: int, ahead: int) -> Iterator[Callable[[Iterable[Task]], Iterator[ReadResult]]]:
    """Give a function that yields what reading each of its tasks gave, in order.

    Args:
        spec: what is the same for all images.
        count: loader processes, gone when the block ends; 0 reads in this process, each image when it is asked for.
        ahead: images that may be read before they are asked for.

    Raises:
        ResourceError: there is no room for the shared memory, or no process can be started.
    """
    if count == 0:
        slot = np.zeros(spec.shape, np.uint8)
        yield lambda tasks: (read_image(spec, task, slot) for task in tasks)
        return
    with closing(Loaders(spec, count, max(ahead, count))) as loaders:
        yield loaders.read


def serve(socket: int, memory: int) -> None:
    """Be a loader, until the parent closes the socket or dies; imports no torch.

    Args:
        socket: descriptor of this end.
        memory: descriptor of the shared memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    parent = Connection(socket)
    spec: ReadSpec = parent.recv()
    slots = np.frombuffer(mmap.mmap(memory, 0), np.uint8).reshape(-1, *spec.shape)
    try:
        parent.send("ready")
        while True:
            try:
                number, slot, task = parent.recv()
            except (EOFError, OSError):  # the parent is gone, perhaps in the middle of a message
                return
            result = read_image(spec, task, slots[slot])
            parent.send((number, result.pixels is not None, replace(result, pixels=None)))
    except ConnectionError:
        pass
    except Exception:  # a defect of ours, not of the image: the parent must not take it for one
        parent.send(traceback.format_exc())


@dataclass
class _Loader:
    """One process, its socket, and the numbers of the tasks it has, in the order it works on them."""

    process: subprocess.Popen[bytes]
    socket: Connection
    waiting: deque[int] = field(default_factory=deque)

    def give(self, number: int, slot: int, task: Task) -> None:
        """Send it a task. Where it died, its socket reads as closed, and all it had is then given to another."""
        self.waiting.append(number)
        with suppress(ConnectionError):
            self.socket.send((number, slot, task))


class Loaders:
    """A pool of loader processes that share a ring of slots, each with room for one image in all views."""

    def __init__(self, spec: ReadSpec, count: int, slots: int) -> None:
        self._spec = spec
        self._memory, self._slots = _shared_slots(spec, slots)
        self._free = list(range(slots))
        self._loaders: list[_Loader] = []
        self._tasks: dict[int, tuple[int, Task]] = {}  # number -> (slot, task), of all tasks under way
        self._results: dict[int, ReadResult] = {}
        self._deaths: dict[int, int] = {}
        try:
            for _ in range(count):
                self._loaders.append(self._start())
            for loader in self._loaders:
                _await_ready(loader)
        except BaseException:
            self.close()
            raise

    def read(self, tasks: Iterable[Task]) -> Iterator[ReadResult]:
        """Yield what reading each task gave, in order; later tasks are read meanwhile.

        A loader that dies (a decoder may crash, or the system may kill it) is replaced, and what it had is read again;
        an image that takes two loaders with it is recorded as failed.
        """
        numbered = enumerate(tasks)
        item, wanted = next(numbered, None), 0
        while item is not None or self._tasks:
            while item is not None and self._free and len(self._idlest().waiting) < _MOST_WAITING:
                number, task = item
                self._tasks[number] = self._free.pop(), task
                self._idlest().give(number, *self._tasks[number])
                item = next(numbered, None)
            if wanted not in self._results:
                self._collect()
                continue
            result = self._results.pop(wanted)
            slot, _ = self._tasks.pop(wanted)
            self._deaths.pop(wanted, None)  # the next call counts from 0 again
            yield result
            self._free.append(slot)
            wanted += 1

    def close(self) -> None:
        """End all processes: they stop when their socket closes, or are killed where a decoder hangs."""
        for loader in self._loaders:
            loader.socket.close()
        for loader in self._loaders:
            try:
                loader.process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                loader.process.kill()
                loader.process.wait()
        self._loaders = []
        os.close(self._memory)

    def _start(self) -> _Loader:
        ours, theirs = Pipe()
        with theirs:
            handles = (theirs.fileno(), self._memory)
            program = "from stages.extract.loaders import serve; serve({}, {})".format(*handles)
            # -P: a folder called `storage` where the user works must not shadow ours
            command = [sys.executable, "-P", "-c", program]
            try:
                process = subprocess.Popen(
                    command, pass_fds=handles, stdin=subprocess.DEVNULL, env=os.environ | _ENVIRONMENT
                )
            except OSError as error:
                ours.close()
                raise ResourceError(
                    f"cannot start a loader process ({error.strerror}); use fewer with --loaders, or --loaders 0"
                ) from error
        with suppress(ConnectionError):  # it died at once; waiting until it is ready says so
            ours.send(self._spec)
        return _Loader(process, ours)

    def _idlest(self) -> _Loader:
        return min(self._loaders, key=lambda loader: len(loader.waiting))

    def _collect(self) -> None:
        """Wait for results, and take them."""
        sockets: dict[Any, _Loader] = {loader.socket: loader for loader in self._loaders}
        for socket in wait(list(sockets)):
            loader = sockets[socket]
            try:
                message = loader.socket.recv()
            except (EOFError, OSError):  # also a message that broke off in the middle
                self._replace(loader)
                continue
            if isinstance(message, str):
                raise RuntimeError(f"a loader process failed:\n{message}")
            number, usable, result = message
            loader.waiting.remove(number)
            self._results[number] = replace(result, pixels=self._slots[self._tasks[number][0]]) if usable else result

    def _replace(self, loader: _Loader) -> None:
        """Start another loader in the place of one that died, and give it what that one had."""
        loader.socket.close()
        code = loader.process.wait()
        fresh = self._start()
        self._loaders[self._loaders.index(loader)] = fresh
        _await_ready(fresh)
        waiting = list(loader.waiting)
        if waiting:  # it worked on the first of these when it died
            suspect = waiting[0]
            self._deaths[suspect] = self._deaths.get(suspect, 0) + 1
            if self._deaths[suspect] >= _TRIES:
                waiting.remove(suspect)
                self._results[suspect] = ReadResult(_crashed(code), None)
        for number in waiting:
            fresh.give(number, *self._tasks[number])


def _shared_slots(spec: ReadSpec, slots: int) -> tuple[int, NDArray[np.uint8]]:
    """Return a nameless file in memory and the (slots, V, S, S, 3) array on it; /dev/shm plays no part on Linux."""
    size = slots * int(np.prod(spec.shape))
    try:
        memory = os.memfd_create("ltdpipe-pixels")
    except (AttributeError, OSError):  # not Linux, or refused by a sandbox
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    try:
        os.ftruncate(memory, size)
        if hasattr(os, "posix_fallocate"):  # claim the memory now: an error here, not a killed process later
            os.posix_fallocate(memory, 0, size)
        return memory, np.frombuffer(mmap.mmap(memory, size), np.uint8).reshape(slots, *spec.shape)
    except OSError as error:
        os.close(memory)
        raise ResourceError(
            f"no {size >> 20} MB of shared memory for the loaders ({error.strerror}); use a smaller --batch, or "
            "--loaders 0"
        ) from error


def _await_ready(loader: _Loader) -> None:
    try:
        loader.socket.recv()
    except (EOFError, OSError) as error:
        raise ResourceError(
            f"a loader process ended with status {loader.process.wait()} before it read an image (its message is "
            "above); with --loaders 0 images are read without one"
        ) from error


def _crashed(code: int) -> dict[str, Any]:
    reason = f"crashed the decoder: the loader process ended with status {code} on it, {_TRIES} times"
    return NO_METADATA | {"status": "failed", "error": reason}

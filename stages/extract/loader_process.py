"""The program of a loader process: ``python -m stages.extract.loader_process SOCKET MEMORY``.

It gets a ``Job``, then (number, slot, ``Task``) messages, and answers (number, facts, usable, view errors, seconds)
after it has written the pixels into its slot of the shared memory. It imports no torch, and it ends when its parent
does, however that dies: the socket then reads as closed.
"""

from __future__ import annotations

import mmap
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np

from stages.extract.reading import Job, read_image


def main() -> None:
    """Serve until the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    socket, memory = (int(argument) for argument in sys.argv[1:])
    parent = Connection(socket)
    job: Job = parent.recv()
    slots = np.frombuffer(mmap.mmap(memory, 0), np.uint8).reshape(-1, *job.shape)
    try:
        parent.send("ready")
        while True:
            try:
                number, slot, task = parent.recv()
            except (EOFError, OSError):  # the parent is gone, perhaps in the middle of a message
                return
            result = read_image(job, task, slots[slot])
            parent.send((number, result.facts, result.pixels is not None, result.view_errors, result.seconds))
    except ConnectionError:
        pass
    except Exception:  # a defect of ours, not of the image: the parent must not take it for one
        parent.send(traceback.format_exc())


if __name__ == "__main__":
    main()

"""What MKL tells of itself. Imports nothing of the project, which would set what is asked for here."""

import ctypes
from pathlib import Path

REPEATABLE = 0x10002  # branch "auto" (2) with the bit of "strict"


def mkl_mode():
    """Return the reproducibility mode in which MKL works in this process, after a call that settles it."""
    import torch

    torch.ones(8, 8) @ torch.ones(8, 8)
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    return int(library.mkl_serv_cbwr_get(-1))

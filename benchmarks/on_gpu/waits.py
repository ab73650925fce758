"""How often, and where, a call makes the CPU wait for the GPU."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

_TOLD = "called a synchronizing CUDA operation"


def host_waits(call: Callable[[], object]) -> dict[str, int]:
    """Waits of a call by file and line, as torch tells them; those of a backward pass too.

    What is copied to the GPU from memory that is not pinned may wait without a word.
    """
    call()  # what is set up at the first call is not counted
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in told if _TOLD in str(warning.message)]
    return dict(Counter(f"{Path(w.filename).name}:{w.lineno}" for w in waits))

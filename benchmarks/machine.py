"""What every benchmark needs: which machine this is, and a timer."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

# With these, glibc keeps freed memory and hands it out again; fresh pages cost more than the sums.
_MALLOC = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a figure has to be read beside."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "malloc": {name: os.environ[name] for name in _MALLOC if name in os.environ},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def median_s(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    _seconds(call, device)
    return statistics.median(_seconds(call, device) for _ in range(repeats))


def _cpu_model() -> str:
    # platform.processor() is empty or only the architecture on most Linux machines.
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    call()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

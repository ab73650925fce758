"""The memory of a process and of everything that it started, by role, sampled from /proc.

Own memory is resident memory less what is shared with other processes: that is Ray's object store,
which is counted once, as the pages that its file has.
"""

import multiprocessing
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")

DRIVER = "driver"
_ROLES = {
    "raylet/raylet": "raylet",  # before workers: it is told how to start them
    "gcs/gcs_server": "gcs",
    "pipelines.detectors.fork_server": "detectors' own processes",
    "ray::MapWorker": "detect actors",
    "ray::Monitor": "monitor actor",
    "ray::": "fetch and write workers",
    "default_worker.py": "fetch and write workers",
}
"""What a command line holds, the first that fits; anything else is one of Ray's helpers."""
_OTHER = "Ray's helpers"

_MB = 1e6


@dataclass(frozen=True)
class Process:
    """One process at one moment."""

    role: str
    own_mb: float
    cpu_s: float
    """Since it was started."""


@dataclass(frozen=True)
class Sample:
    """All processes at one moment."""

    time: float
    """Seconds since the epoch."""
    processes: Mapping[int, Process]
    """By process id."""
    object_store_mb: float
    """Pages of the object store that were ever written: it gives none back."""

    def own_mb(self, role: str) -> list[float]:
        """What each process of a role holds."""
        return [process.own_mb for process in self.processes.values() if process.role == role]


def watched_call(
    every_s: float,
    function: Callable[Params, Result],
    *args: Params.args,
    **kwargs: Params.kwargs,
) -> tuple[Result, list[Sample]]:
    """What a function returns in a fresh process, and samples of its memory while it ran.

    Args:
        every_s: seconds between two samples.
    """
    context = multiprocessing.get_context("spawn")
    samples = []
    with ProcessPoolExecutor(1, context, _say_on_stderr) as pool:
        pid = pool.submit(os.getpid).result()
        call = pool.submit(function, *args, **kwargs)
        while not call.done():
            samples.append(sample(pid))
            wait([call], timeout=every_s)
        return call.result(), samples


def in_own_process(
    function: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs
) -> Result:
    """What a function returns in a fresh process, whose memory nobody has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def peak_growth_mb(call: Callable[[], object]) -> float:
    """By how much a call raises this process's resident memory, at the most.

    Not by getrusage: a process begins with the peak of the one that started it.
    """
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
    before = _status_bytes(os.getpid())["VmRSS:"]
    call()
    return (_status_bytes(os.getpid())["VmHWM:"] - before) / _MB


def _say_on_stderr() -> None:
    """What Ray prints must not come between the lines of a report."""
    os.dup2(2, 1)


def sample(driver: int) -> Sample:
    """A process and its descendants now."""
    processes, object_store_mb = {}, 0.0
    for pid in descendants(driver):
        with suppress(OSError):  # it may have ended meanwhile
            role = DRIVER if pid == driver else _role(pid)
            processes[pid] = Process(role, _own_mb(pid), _cpu_s(pid))
            if role == "raylet":
                object_store_mb = _object_store_mb(pid)
    return Sample(time.time(), processes, object_store_mb)


def peak_mb(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Role → the most that one process of it held, that all of them held, and how many ran."""
    roles = {process.role for each in samples for process in each.processes.values()}
    peaks = {}
    for role in sorted(roles):
        held = [each.own_mb(role) for each in samples]
        peaks[role] = {
            "one_process": round(max(max(processes, default=0) for processes in held), 1),
            "all_processes": round(max(map(sum, held)), 1),
            "processes": max(map(len, held)),
        }
    return peaks


def cpu_s(samples: Sequence[Sample], first: float = -inf, last: float = inf) -> dict[str, float]:
    """Role → the seconds that its processes kept a core busy, between two moments.

    A process counts to the role that it was seen in most often: Ray renames them.
    """
    roles: defaultdict[int, Counter[str]] = defaultdict(Counter)
    before: dict[int, float] = {}
    now: dict[int, float] = {}
    for each in samples:
        for pid, process in each.processes.items():
            roles[pid][process.role] += 1
            if each.time <= first:
                before[pid] = process.cpu_s
            if each.time <= last:
                now[pid] = process.cpu_s
    seconds: defaultdict[str, float] = defaultdict(float)
    for pid, value in now.items():
        [(role, _)] = roles[pid].most_common(1)
        seconds[role] += value - before.get(pid, 0.0)
    return {role: round(value, 2) for role, value in sorted(seconds.items())}


def descendants(root: int) -> Iterator[int]:
    """The process and all that it started, however indirectly, as far as their parents live."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            children[int(parent)].append(int(folder.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children[pid]
    yield from found


def _role(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return next((role for part, role in _ROLES.items() if part in command), _OTHER)


def _own_mb(pid: int) -> float:
    held = _status_bytes(pid)
    return (held.get("RssAnon:", 0) + held.get("RssFile:", 0)) / _MB


def _status_bytes(pid: int) -> dict[str, int]:
    """What a process holds, by the kernel's names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split()[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith("kB")}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _object_store_mb(raylet: int) -> float:
    """Pages of the store's file, which has no name any more but in the raylet's open files."""
    files = {}
    for link in Path(f"/proc/{raylet}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(link).startswith("/dev/shm/plasma"):
                status = link.stat()
                files[status.st_ino] = 512 * status.st_blocks
    return sum(files.values()) / _MB

"""Runs each part in a process of its own, for as long as its share of the time lasts."""

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from benchmarks.memory import descendants
from benchmarks.on_gpu.sizes import Measure, Result, Sizes, Skipped

DONE, SKIPPED, FAILED, CUT_OFF = "done", "skipped", "failed", "cut off"
_FOUND = "found"

_SECONDS_TO_LEAVE = 5.0
"""For a process that has said its last word: Ray's end takes a moment."""

# From a process that has imported torch, and knows no GPU yet: the parts need not import it again.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch"])


@dataclass(frozen=True)
class Part:
    """Something to be measured."""

    name: str
    weight: float
    """Of its share of the time, beside the weights of the others."""
    measure: Measure


def part_of_module(name: str, weight: float) -> Part:
    """What a module beside this one measures."""
    return Part(name, weight, partial(_measure, f"{__package__}.{name}"))


def _measure(module: str, sizes: Sizes) -> Iterator[Result]:
    # Imported here, in the part's process: a package that is missing costs that part alone.
    yield from importlib.import_module(module).measure(sizes)


def run_parts(parts: Sequence[Part], sizes: Sizes, seconds: float) -> Iterator[Result]:
    """What each part found and how it ended; the time that one leaves goes to those after it."""
    deadline = time.monotonic() + seconds
    for number, part in enumerate(parts):
        share = part.weight / sum(later.weight for later in parts[number:])
        yield run_part(part, sizes, share * (deadline - time.monotonic()))


def run_part(part: Part, sizes: Sizes, seconds: float) -> Result:
    """Whatever happens to a part, what it found until then stays."""
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(part.measure, sizes, sender))
    started = time.monotonic()
    process.start()
    sender.close()
    found, ended, reason = _heard(receiver, started + seconds)
    _end(process, 0 if ended == CUT_OFF else _SECONDS_TO_LEAVE)
    return {
        "part": part.name,
        "ended": ended,
        **({"reason": reason} if reason else {}),
        "seconds": round(time.monotonic() - started, 1),
        "found": found,
    }


def _work(measure: Measure, sizes: Sizes, sender: Connection) -> None:
    os.dup2(2, 1)  # what Ray prints must not come between the lines of the report
    try:
        for result in measure(sizes):
            sender.send((_FOUND, result))
        sender.send((DONE, ""))
    except Skipped as reason:
        sender.send((SKIPPED, str(reason)))
    except Exception as error:
        traceback.print_exc()
        sender.send((FAILED, f"{type(error).__name__}: {error}"))


def _heard(receiver: Connection, deadline: float) -> tuple[list[Result], str, str]:
    """What a part found, how it ended, and why if not well."""
    found: list[Result] = []
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            word, said = receiver.recv()
        except EOFError:
            return found, FAILED, "its process died"
        if word != _FOUND:
            return found, word, said
        found.append(said)
    return found, CUT_OFF, "its share of the time was over"


def _end(process: ForkServerProcess, patience_s: float) -> None:
    """End a process and all that it started, a local Ray for one."""
    assert process.pid is not None
    started = list(descendants(process.pid))
    process.join(patience_s)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.join()

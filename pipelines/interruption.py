"""Ctrl-C and SIGTERM: a run that is asked to stop says how to go on, and ends soon."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 20.0
"""So long a run may take to write down that it was stopped; clusters wait for 30 s, then kill."""

_asked_by: signal.Signals | None = None
_end: threading.Timer | None = None


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the signal."""


@contextmanager
def listening() -> Iterator[None]:
    """Within it, the two signals raise Interrupted in the main thread, which must be the caller."""
    global _asked_by, _end
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        if _end is not None:
            _end.cancel()
        _asked_by = _end = None
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_by() -> signal.Signals | None:
    """The signal that has asked this process to stop.

    A library in whose midst it came may raise what it likes, or nothing: DuckDB does either.
    """
    return _asked_by


def check() -> None:
    """Raises Interrupted if this process was asked to stop, which a library may have kept back."""
    if _asked_by is not None:
        raise Interrupted


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _asked_by, _end
    if _asked_by is None:
        _asked_by = signal.Signals(number)
        _end = threading.Timer(GRACE_S, _end_late, [_asked_by])
        _end.daemon = True
        _end.start()
    raise Interrupted


def _end_late(asked_by: signal.Signals) -> None:
    """End the process where it has not done so itself, as with a storage that does not answer."""
    print(
        f"stopped by {name_of(asked_by)}, and it could not be written down in {GRACE_S:.0f} s. "
        "What is written is safe; the same command goes on with the rest.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(128 + asked_by)


def name_of(number: signal.Signals) -> str:
    """As people know it."""
    return "Ctrl-C" if number is signal.SIGINT else number.name

"""How a long job ends that does not end well: a sentence, and an exit code that schedules read."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from pipelines import cluster, interruption
from pipelines.errors import (
    ClusterTooSmallError,
    RunHeldError,
    RunStoppedError,
    StalledError,
    TrainingDivergedError,
)

EXIT_STOPPED = 1
EXIT_STALLED = 4
EXIT_HELD = 5
EXIT_CLUSTER_TOO_SMALL = 6

_GOES_ON = "What is written is safe; the same command goes on with the rest."


@contextmanager
def told_with_a_code() -> Iterator[None]:
    """Within it, Ctrl-C, SIGTERM and the errors of a run end the process, after how to go on.

    Other errors go on their way.
    """
    with interruption.listening():
        try:
            yield
        except BaseException as error:
            _leave_with(error)


@contextmanager
def stopped_with_a_code(of_what: str = "") -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM end a job that goes on nowhere, after it has tidied up."""
    with interruption.listening():
        try:
            yield
        except BaseException:
            if signal := interruption.asked_by():
                print(f"stopped by {interruption.name_of(signal)}{of_what}", file=sys.stderr)
                sys.exit(128 + signal)
            raise


def _leave_with(error: BaseException) -> NoReturn:
    signal = interruption.asked_by()
    if signal:
        _leave(f"stopped by {interruption.name_of(signal)}. {_GOES_ON}", 128 + signal)
    match error:
        case StalledError():
            _leave(f"error: {error}\n{_GOES_ON}", EXIT_STALLED)
        case RunHeldError():
            _leave(f"error: {error}", EXIT_HELD)
        case ClusterTooSmallError():
            _leave(f"error: {error}. {_GOES_ON}", EXIT_CLUSTER_TOO_SMALL)
        case RunStoppedError():
            _leave(f"error: {error}. {_GOES_ON}", EXIT_STOPPED)
        case TrainingDivergedError():
            _leave(f"error: {error}", EXIT_STOPPED)
    raise error


def _leave(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    cluster.leave(code)

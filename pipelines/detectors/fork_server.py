"""The fork server: it forks a detector's processes, so that a new one need not import torch again.

`python -m pipelines.detectors.fork_server FD DETECTOR [RUNTIME DEVICE]` imports the detector and,
of ours, what runs it. Then it serves the other end of the socket FD, one byte at a time: FORK comes
with a connection, which a new child takes to `_serve`; REAP ends the child, and is answered with
its exit code. It ends when the socket is closed, and takes its child with it. It never computes
anything, so it notices at once.
"""

import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from pipelines.detectors.contract import ImageDetector, ModelFailedError, load_detector_class
from pipelines.detectors.runtimes.contract import load_runtime_class

FORK = b"f"
REAP = b"r"
EXIT_CODE = struct.Struct("i")
"""As subprocess has it: negative for a signal."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    control, detector, runtime = socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever holds the other end
    with suppress(Exception):  # the child meets the same error, and has someone to tell
        load_detector_class(detector)
        if runtime:
            load_runtime_class(*runtime)
    child = 0
    while True:
        command, fds, _, _ = socket.recv_fds(control, 1, 1)
        if command == FORK:
            child = _fork(control, Connection(fds[0]), detector)
        elif command == REAP:
            control.sendall(EXIT_CODE.pack(_reap(child)))
        else:
            return


def _fork(control: socket.socket, connection: Connection, detector: str) -> int:
    server = os.getpid()
    with connection:
        if child := os.fork():
            return child
        try:
            _die_with(server)
            control.close()
            _serve(connection, detector)
        except BaseException:  # a detector may even call sys.exit()
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, whatever it is doing then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _reap(child: int) -> int:
    # It has closed its connection, so it is dead or dying; if it is not, it is of no use.
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _serve(connection: Connection, name: str) -> None:
    """Construct the detector and answer what is asked, until there is nobody left to ask."""
    with suppress(EOFError, OSError):
        checkpoint, settings = connection.recv_bytes(), connection.recv()
        try:
            detector = load_detector_class(name)(checkpoint, settings)
            reply: bytes = pickle.dumps(tuple(detector.class_names))
        except Exception as error:
            connection.send_bytes(_pickled(error))
            return
        connection.send_bytes(reply)
        try:
            _answer(connection, detector)
        except MemoryError:
            # Which image it was is found as if the kernel had killed the process, by a fresh one.
            os.kill(os.getpid(), signal.SIGKILL)


def _answer(connection: Connection, detector: ImageDetector) -> None:
    """Answer questions, each of which is read, and prepared, while the one before is answered."""
    prepare = getattr(detector, "prepare", list)
    detect = getattr(detector, "detect", detector)
    reader = ThreadPoolExecutor(1)
    coming = reader.submit(_read, connection, prepare)
    while True:
        question = coming.result()
        coming = reader.submit(_read, connection, prepare)
        connection.send_bytes(_reply(detect, question))


def _read(connection: Connection, prepare: Callable[[list[bytes]], Any]) -> "Future[Any]":
    """The next question's images, prepared; of what that raises, the answer tells."""
    bodies = [connection.recv_bytes() for _ in range(connection.recv())]
    prepared: Future[Any] = Future()
    try:
        prepared.set_result(prepare(bodies))
    except Exception as error:
        prepared.set_exception(error)
    return prepared


def _reply(detect: Callable[[Any], Iterable[Any]], question: "Future[Any]") -> bytes:
    """The detector's answers, or what it raised, pickled."""
    try:
        return pickle.dumps(list(detect(question.result())))
    except (MemoryError, ModelFailedError):
        raise
    except Exception as error:
        return _pickled(error)


def _pickled(error: Exception) -> bytes:
    """An exception with the traceback that it cannot take along."""
    text = f"In the detector's process:\n{traceback.format_exc()}"
    error.add_note(text)
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # some exceptions cannot be pickled, others not be unpickled
        substitute = RuntimeError(f"{type(error).__name__}: {error}")
        substitute.add_note(text)
        return pickle.dumps(substitute)
    return data


if __name__ == "__main__":
    main()

"""A detector's process: what starts it, and the conversation with it."""

import multiprocessing
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.detectors.fork_server import EXIT_CODE, FORK, REAP
from pipelines.photos import ErrorKind, ImageError

_REAPED_WITHIN_S = 30.0
"""A fork server that has been stopped does not answer."""
_LONGEST_S = 1e6
"""That poll() can wait: it counts milliseconds in 31 bits."""


class Answers(NamedTuple):
    """What a detector said of some images."""

    images: Sequence[LabelledImage | ImageError]
    seconds: float
    """That they took, without what was asked before them."""


class ProcessDiedError(Exception):
    """A detector's process has ended before it answered."""

    def __init__(self, message: str, cause: str, kind: ErrorKind) -> None:
        super().__init__(message)
        self.cause, self.kind = cause, kind

    @classmethod
    def of(cls, exit_code: int) -> Self:
        """By itself or by a signal."""
        cause = _signal_name(-exit_code) if exit_code < 0 else f"exit code {exit_code}"
        killed = exit_code == -signal.SIGKILL
        kind = ErrorKind.OUT_OF_MEMORY if killed else ErrorKind.CRASHED
        return cls(f"the detector's process died over it: {cause}", cause, kind)

    @classmethod
    def of_time(cls, seconds: float) -> Self:
        """By us, for it gave no answer."""
        message = f"the detector gave no answer in {seconds:g} s, and its process was ended"
        return cls(message, "our time limit", ErrorKind.TIMED_OUT)


@dataclass(frozen=True)
class _Question:
    limit_s: float
    """From the answer to the one before."""
    answers: "Future[Answers]" = field(default_factory=Future)


class Child:
    """One process with a loaded detector. It answers in order, and may be asked before it has."""

    def __init__(self, server: "ForkServer", checkpoint: bytes, settings: DetectorSettings) -> None:
        """Fork it and load the model.

        Raises:
            ProcessDiedError: it dies before the model is loaded.
            Exception: what the constructor raised, with its traceback as a note.
        """
        self.death: ProcessDiedError | None = None
        self._server = server
        try:
            self._connection = server.fork()
            self._connection.send_bytes(checkpoint)
            self._connection.send(settings)
            reply = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise ProcessDiedError.of(server.reap()) from error
        self.class_names: Sequence[str] = _unpickled(reply)
        self._sending = threading.Lock()
        self._asked: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, bodies: Sequence[bytes], limit_s: float) -> Answers:
        """What it says of them; other threads may ask meanwhile.

        Raises:
            ProcessDiedError: it has died, over these or over others that were asked about.
            Exception: what the detector raised, with its traceback as a note.
        """
        question = _Question(limit_s)
        with self._sending:
            self._asked.put(question)
            self._send(bodies)
        return question.answers.result()

    def leave(self) -> None:
        """Ask nothing more; the fork server's end is that of the process."""
        self._asked.put(None)

    def _send(self, bodies: Sequence[bytes]) -> None:
        try:
            # Each file as a message of its own: half as fast as memcpy, and eight times as fast
            # as one pickled list.
            self._connection.send(len(bodies))
            for body in bodies:
                self._connection.send_bytes(body)
        except OSError:
            pass  # it has died; who listens tells
        except BaseException:
            # Interrupted: half a question must not be taken for one. Not close(), with a listener.
            with socket.socket(fileno=os.dup(self._connection.fileno())) as pipe:
                pipe.shutdown(socket.SHUT_WR)
            raise

    def _listen(self) -> None:
        """Give each question its answer, or after the process's death that."""
        while question := self._asked.get():
            try:
                question.answers.set_result(self._answers(question))
            except Exception as error:
                question.answers.set_exception(error)
        self._connection.close()

    def _answers(self, question: _Question) -> Answers:
        started = time.monotonic()
        reply = self._reply(question.limit_s)
        return Answers(_unpickled(reply), time.monotonic() - started)

    def _reply(self, limit_s: float) -> bytes:
        if not self.death:
            try:
                if self._connection.poll(min(limit_s, _LONGEST_S)):
                    return self._connection.recv_bytes()
                self.death = ProcessDiedError.of_time(limit_s)
                self._server.reap()
            except (EOFError, OSError):
                self.death = ProcessDiedError.of(self._server.reap())
        raise self.death


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def _unpickled(reply: bytes) -> Any:
    """What came back; an exception is raised."""
    value = pickle.loads(reply)
    if isinstance(value, Exception):
        raise value
    return value


class ForkServer:
    """This side of the fork server, which is started again should something kill it.

    Not multiprocessing's forkserver: its children keep it alive, so that one amid a computation
    outlives us, and they import our __main__ again, which in a Ray worker is Ray.
    """

    def __init__(self, detector: str, runtime: Sequence[str]) -> None:
        self._imported = [detector, *runtime]
        self._is_closed = False
        self._open()

    def _open(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_REAPED_WITHIN_S)
        with theirs:
            fd = theirs.fileno()
            # Ray changes sys.path, not PYTHONPATH, to tell its workers where the code lies.
            path = os.pathsep.join(map(os.path.abspath, sys.path))
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "pipelines.detectors.fork_server",
                    str(fd),
                    *self._imported,
                ],
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                pass_fds=[fd],
            )

    def fork(self) -> Connection:
        """The connection to a new child."""
        mine, theirs = multiprocessing.Pipe()
        with theirs:
            socket.send_fds(self._control, [FORK], [theirs.fileno()])
        return mine

    def reap(self) -> int:
        """End the child, if it has not ended yet; its exit code, negative for a signal."""
        try:
            self._control.sendall(REAP)
            reply = self._control.recv(EXIT_CODE.size)
        except OSError:  # a timeout is one
            reply = b""
        if reply:
            exit_code: int = EXIT_CODE.unpack(reply)[0]
            return exit_code
        # The server itself was killed, and its child went with it.
        if not self._is_closed:
            self._end()
            self._open()
        return -signal.SIGKILL

    def close(self) -> None:
        """End it and the child that it has."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()

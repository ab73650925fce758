"""IsolatedDetector: a detector in a process of its own, where an image that kills costs one row."""

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.detectors.fork_server import EXIT_CODE, FORK, REAP
from pipelines.photos import ErrorKind, ImageError

_MAX_STARTS = 3
"""Something else may kill a process that loads its model, but hardly three in a row."""
_MAX_FUTILE_DEATHS = 300
"""Without an answer in between: a hundred poison images in a row cost as many."""


class IsolatedDetector:
    """Asks a detector that lives in a child process, and keeps the ImageDetector contract.

    When the child dies over some images, a new one is asked for each half of them, and so on: an
    image over which two children died is the poison. It is `out_of_memory` where the last of them
    was killed by SIGKILL, which Linux sends when memory runs out, else `crashed`. A child that
    something else kills costs no image.
    """

    def __init__(self, detector: str, checkpoint: bytes, settings: DetectorSettings) -> None:
        """Start the process and load the model.

        Args:
            detector: "package.module:Class" of an ImageDetector.
            checkpoint: for its constructor.
            settings: for its constructor.

        Raises:
            RuntimeError: the process dies each time before the model is loaded.
            Exception: what the constructor raised, with its traceback as a note.
        """
        self._detector = detector
        self._checkpoint = checkpoint
        self._settings = settings
        self._futile_deaths = 0
        self._server = _ForkServer(detector)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __call__(self, bodies: Sequence[bytes]) -> Sequence[LabelledImage | ImageError]:
        """The detector's answers, and an ImageError for each image that kills its process.

        Raises:
            RuntimeError: the process keeps dying, whatever it is asked.
            Exception: what the detector raised, with its traceback as a note.
        """
        if not bodies:
            return []
        try:
            return self._ask(bodies)
        except _ProcessDiedError:
            if len(bodies) == 1:
                return [self._ask_again(bodies[0])]
        middle = len(bodies) // 2
        return [*self(bodies[:middle]), *self(bodies[middle:])]

    def close(self) -> None:
        """End the process; without this, it ends with the process that started it."""
        self._server.close()

    def _ask_again(self, body: bytes) -> LabelledImage | ImageError:
        try:
            [answer] = self._ask([body])
        except _ProcessDiedError as death:
            return ImageError(death.kind, str(death))
        return answer

    def _ask(self, bodies: Sequence[bytes]) -> Sequence[LabelledImage | ImageError]:
        try:
            # Each file as a message of its own: half as fast as memcpy, and eight times as fast as
            # one pickled list.
            self._connection.send(len(bodies))
            for body in bodies:
                self._connection.send_bytes(body)
            reply = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._restart() from error
        except BaseException:
            # Interrupted: the next call must not read the answer to this one.
            self._connection.close()
            raise
        self._futile_deaths = 0
        answers: Sequence[LabelledImage | ImageError] = _unpickled(reply)
        return answers

    def _restart(self) -> "_ProcessDiedError":
        """How the process ended; a new one is ready."""
        death = _ProcessDiedError(self._server.reap())
        self._futile_deaths += 1
        if self._futile_deaths > _MAX_FUTILE_DEATHS:
            raise RuntimeError(
                f"{self._detector}: its process died {self._futile_deaths} times without an answer "
                f"in between, at last by {death.cause}: the detector fails, not an image"
            )
        self._start()
        return death

    def _start(self) -> None:
        for _ in range(_MAX_STARTS):
            try:
                self._connection = self._server.fork()
                self._connection.send_bytes(self._checkpoint)
                self._connection.send(self._settings)
                reply = self._connection.recv_bytes()
            except (EOFError, OSError):
                death = _ProcessDiedError(self._server.reap())
                continue
            self.class_names: Sequence[str] = _unpickled(reply)
            return
        raise RuntimeError(
            f"{self._detector}: its process died {_MAX_STARTS} times in a row before its model was "
            f"loaded, at last by {death.cause}"
        )


class _ProcessDiedError(Exception):
    def __init__(self, exit_code: int) -> None:
        self.cause = _signal_name(-exit_code) if exit_code < 0 else f"exit code {exit_code}"
        super().__init__(f"the detector's process died over it: {self.cause}")
        killed = exit_code == -signal.SIGKILL
        self.kind = ErrorKind.OUT_OF_MEMORY if killed else ErrorKind.CRASHED


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


class _ForkServer:
    """This side of the fork server, which is started again should something kill it.

    Not multiprocessing's forkserver: its children keep it alive, so that one amid a computation
    outlives us, and they import our __main__ again, which in a Ray worker is Ray.
    """

    def __init__(self, detector: str) -> None:
        self._detector = detector
        self._open()

    def _open(self) -> None:
        self._control, theirs = socket.socketpair()
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
                    self._detector,
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
        except OSError:
            reply = b""
        if reply:
            exit_code: int = EXIT_CODE.unpack(reply)[0]
            return exit_code
        # The server itself was killed, and its child went with it.
        self.close()
        self._open()
        return -signal.SIGKILL

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()

"""IsolatedDetector: a detector in a process of its own, where an image that kills costs one row."""

import math
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from pipelines.detectors.contract import YOLOX, DetectorSettings, LabelledImage
from pipelines.detectors.fork_server import EXIT_CODE, FORK, REAP
from pipelines.photos import ErrorKind, ImageError

_MAX_STARTS = 3
"""Something else may kill a process that loads its model, but hardly three in a row."""
_SLOWEST_S = 5.0
"""Of several images, what each but one may take besides the time of one."""
_MOST_FOR_MANY_S = 300.0
"""A question that was cut off is asked again in halves: that costs time, and no image."""
_REAPED_WITHIN_S = 30.0
"""A fork server that has been stopped does not answer."""
_MAX_FUTILE_DEATHS = 300
"""Without an answer in between: a hundred poison images in a row cost as many."""


class IsolatedDetector:
    """Asks a detector that lives in a child process, and keeps the ImageDetector contract.

    When the child dies over some images, a new one is asked for each half of them, and so on: an
    image over which two children died is the poison. It is `out_of_memory` where the last of them
    was killed by SIGKILL, which Linux sends when memory runs out, else `crashed`. A child that
    something else kills costs no image. One that does not answer in time is ended, and the image
    over which that happened twice is `timed_out`.
    """

    def __init__(
        self,
        detector: str,
        checkpoint: bytes,
        settings: DetectorSettings,
        image_timeout_s: float = math.inf,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the process and load the model.

        Args:
            detector: "package.module:Class" of an ImageDetector.
            checkpoint: for its constructor.
            settings: for its constructor.
            image_timeout_s: what one image may take; several get some seconds more for each.
            on_death: called whenever the process has died, maybe often over one question.

        Raises:
            RuntimeError: the process dies each time before the model is loaded.
            Exception: what the constructor raised, with its traceback as a note.
        """
        self._detector = detector
        self._checkpoint = checkpoint
        self._settings = settings
        self._image_timeout_s = image_timeout_s
        self._on_death = on_death
        self._futile_deaths = 0
        self._server = _ForkServer(detector, [settings.runtime] if detector == YOLOX else [])
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
        limit_s = self._image_timeout_s + min((len(bodies) - 1) * _SLOWEST_S, _MOST_FOR_MANY_S)
        deadline = _Deadline(limit_s, self._server.reap)
        try:
            with deadline:
                # Each file as a message of its own: half as fast as memcpy, and eight times as fast
                # as one pickled list.
                self._connection.send(len(bodies))
                for body in bodies:
                    self._connection.send_bytes(body)
                reply = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._restart(deadline) from error
        except BaseException:
            # Interrupted: the next call must not read the answer to this one.
            self._connection.close()
            raise
        self._futile_deaths = 0
        if deadline.has_passed:  # just after the answer
            self._start()
        answers: Sequence[LabelledImage | ImageError] = _unpickled(reply)
        return answers

    def _restart(self, deadline: "_Deadline") -> "_ProcessDiedError":
        """How the process ended; a new one is ready."""
        if deadline.has_passed:
            death = _ProcessDiedError.of_time(deadline.seconds)
        else:
            death = _ProcessDiedError.of(self._server.reap())
        self._on_death()
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
                death = _ProcessDiedError.of(self._server.reap())
                continue
            self.class_names: Sequence[str] = _unpickled(reply)
            return
        raise RuntimeError(
            f"{self._detector}: its process died {_MAX_STARTS} times in a row before its model was "
            f"loaded, at last by {death.cause}"
        )


class _ProcessDiedError(Exception):
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


class _Deadline:
    """Ends a detector's process where a question takes too long, also one that has been stopped."""

    def __init__(self, seconds: float, end: Callable[[], int]) -> None:
        self.seconds, self._end = seconds, end
        self.has_passed = False
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._pass)
        self._timer.daemon = True

    def _pass(self) -> None:
        self.has_passed = True
        self._end()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        self._timer.join()


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

    def __init__(self, detector: str, runtimes: Sequence[str]) -> None:
        self._imported = [detector, *runtimes]
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
        self.close()
        self._open()
        return -signal.SIGKILL

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()

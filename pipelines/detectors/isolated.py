"""IsolatedDetector: a detector in a process of its own, where an image that kills costs one row."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipelines.detectors.child import Answers, Child, ForkServer, ProcessDiedError
from pipelines.detectors.contract import YOLOX, DetectorSettings, LabelledImage
from pipelines.photos import ImageError

IN_FLIGHT = 2
"""Questions at once: a detector decodes the images of one while it looks at those of the other."""
_MAX_STARTS = 3
"""Something else may kill a process that loads its model, but hardly three in a row."""
_SLOWEST_S = 5.0
"""Of several images, what each but one may take besides the time of one."""
_MOST_FOR_MANY_S = 300.0
"""A question that was cut off is asked again in halves: that costs time, and no image."""
_MAX_FUTILE_DEATHS = 300
"""Without an answer in between: a hundred poison images in a row cost as many."""


class IsolatedDetector:
    """Asks a detector that lives in a child process, and keeps the ImageDetector contract.

    IN_FLIGHT threads may ask at once. When the child dies, a new one is asked for each half of the
    images, and so on, one question at a time: an image over which two children died is the poison.
    It is `out_of_memory` where the last of them was killed by SIGKILL, which Linux sends when
    memory runs out, else `crashed`. A child that something else kills costs no image. One that does
    not answer in time is ended, and the image over which that happened twice is `timed_out`.
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
        self._free = threading.Semaphore(IN_FLIGHT)
        self._taking = threading.Lock()
        runtime = (settings.runtime, settings.device) if detector == YOLOX else ()
        self._server = ForkServer(detector, runtime)
        try:
            self._child = self._start()
        except BaseException:
            self._server.close()
            raise
        self.class_names = self._child.class_names

    def __call__(self, bodies: Sequence[bytes]) -> Sequence[LabelledImage | ImageError]:
        """The detector's answers, and an ImageError for each image that kills its process.

        Raises:
            RuntimeError: the process keeps dying, whatever it is asked.
            Exception: what the detector raised, with its traceback as a note.
        """
        return self.ask(bodies).images

    def ask(self, bodies: Sequence[bytes]) -> Answers:
        """As a call, with the seconds that the images took."""
        with self._in_flight(1):
            try:
                return self._ask(bodies)
            except ProcessDiedError:
                pass
        # Over these images, or over those of another question: now one after the other.
        with self._in_flight(IN_FLIGHT):
            started = time.monotonic()
            return Answers(self._in_halves(bodies), time.monotonic() - started)

    def close(self) -> None:
        """End the process; without this, it ends with the process that started it."""
        self._child.leave()
        self._server.close()

    @contextmanager
    def _in_flight(self, count: int) -> Iterator[None]:
        """With so many of the questions that there may be at once; all of them is alone."""
        with self._taking:
            for _ in range(count):
                self._free.acquire()
        try:
            yield
        finally:
            self._free.release(count)

    def _start(self) -> Child:
        for _ in range(_MAX_STARTS):
            try:
                return Child(self._server, self._checkpoint, self._settings)
            except ProcessDiedError as error:
                death = error
        raise RuntimeError(
            f"{self._detector}: its process died {_MAX_STARTS} times in a row before its model was "
            f"loaded, at last by {death.cause}"
        )

    def _in_halves(self, bodies: Sequence[bytes]) -> list[LabelledImage | ImageError]:
        middle = len(bodies) // 2
        return [*self._alone(bodies[:middle]), *self._alone(bodies[middle:])]

    def _alone(self, bodies: Sequence[bytes]) -> Sequence[LabelledImage | ImageError]:
        try:
            self._revive()
            return self._ask(bodies).images
        except ProcessDiedError:
            return self._in_halves(bodies) if len(bodies) > 1 else [self._again(bodies[0])]

    def _again(self, body: bytes) -> LabelledImage | ImageError:
        try:
            self._revive()
            [answer] = self._ask([body]).images
        except ProcessDiedError as death:
            return ImageError(death.kind, str(death))
        return answer

    def _revive(self) -> None:
        """A new process, where this one has died."""
        if not (death := self._child.death):
            return
        self._child.leave()
        self._on_death()
        self._futile_deaths += 1
        if self._futile_deaths > _MAX_FUTILE_DEATHS:
            raise RuntimeError(
                f"{self._detector}: its process died {self._futile_deaths} times without an answer "
                f"in between, at last by {death.cause}: the detector fails, not an image"
            )
        self._child = self._start()

    def _ask(self, bodies: Sequence[bytes]) -> Answers:
        if not bodies:
            return Answers([], 0.0)
        limit_s = self._image_timeout_s + min((len(bodies) - 1) * _SLOWEST_S, _MOST_FOR_MANY_S)
        answers = self._child.ask(bodies, limit_s)
        self._futile_deaths = 0
        return answers

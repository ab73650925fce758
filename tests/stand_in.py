"""A detector for tests where the model is not the point: fast, without a model, deterministic.

It is named "tests.stand_in:StandIn". What it finds follows from a hash of the bytes; bodies that
begin with a word in capitals do to its process what real files do to a decoder.
"""

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipelines.detectors.contract import DetectorSettings, LabelledImage, ModelFailedError

SLOW_S = 0.2
"""What a body that begins with SLOW takes."""


class StandIn:
    """What begins a body happens to the process, or with NAN and EMPTY to the answer."""

    class_names = ("cat", "dog", "bird")

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        """Anything will do as a checkpoint."""

    def __call__(self, bodies: Sequence[bytes]) -> list[LabelledImage]:
        for body in bodies:
            self._suffer(body)
        return [found_in(body) for body in bodies]

    def _suffer(self, body: bytes) -> None:
        if body.startswith(b"CRASH"):
            os.kill(os.getpid(), signal.SIGSEGV)
        elif body.startswith(b"EXIT"):
            sys.exit(3)
        elif body.startswith(b"OOM"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif body.startswith(b"HUGE"):
            bytearray(1 << 60)
        elif body.startswith(b"HANG"):
            # With Python's lock held, as a decoder does that loops for ever.
            ctypes.PyDLL(None).sleep(600)
        elif body.startswith(b"SLOW"):
            time.sleep(SLOW_S)
        elif body.startswith(b"FAIL"):
            raise ModelFailedError("an illegal memory access was encountered")
        elif body.startswith(b"REFUSE"):
            raise PermissionError("a bug")
        elif body.startswith(b"RAISE"):
            raise DetectorBugError(0, "a bug")


class ReadingAhead(StandIn):
    """Says of each image how many of the next question's had been prepared when it was asked."""

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        self._prepared = 0

    def prepare(self, bodies: Sequence[bytes]) -> Sequence[bytes]:
        self._prepared += len(bodies)
        return bodies

    def detect(self, prepared: Sequence[bytes]) -> list[LabelledImage]:
        for body in prepared:
            self._suffer(body)
        ahead = self._prepared - len(prepared)
        self._prepared -= len(prepared)
        return [replace(found_in(body), width=1 + ahead) for body in prepared]


class Weighing(StandIn):
    """Calls what it finds after the bytes of its checkpoint."""

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        self.class_names = (f"{len(checkpoint)} bytes",) * len(StandIn.class_names)


class Fragile(StandIn):
    """A checkpoint does to it what a body does to StandIn."""

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        self._suffer(checkpoint)


class DetectorBugError(Exception):
    """One of those that can be pickled, but not be made anew from it."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)


def found_in(body: bytes) -> LabelledImage:
    """1 to 4 boxes on 640 x 480 px; NaN where the body begins with NAN, none where with EMPTY."""
    rng = np.random.default_rng(list(hashlib.sha256(body).digest()))
    count = 0 if body.startswith(b"EMPTY") else rng.integers(1, 5)
    left_top, size = rng.uniform(0, 380, (count, 2)), rng.uniform(1, 100, (count, 2))
    boxes = np.concatenate((left_top, left_top + size), axis=1).astype(np.float32)
    if body.startswith(b"NAN"):
        boxes[:] = np.nan
    scores = rng.uniform(0.1, 1, count).astype(np.float32)
    return LabelledImage(640, 480, boxes, scores, rng.integers(0, 3, count))

"""A detector for tests where the model is not the point: "tests.stand_in:StandIn".

What it finds follows from a hash of the bytes. Bodies that begin with a word in capitals do to its
process what real files do to a decoder.
"""

import ctypes
import hashlib
import os
import signal
import time
from collections.abc import Sequence

import numpy as np

from pipelines.detection import DetectorSettings, LabelledImage

SLOW_S = 0.1
"""What a body that begins with SLOW takes."""


class StandIn:
    """CRASH, OOM, HANG, SLOW and RAISE happen to the process, NAN to the answer."""

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
        elif body.startswith(b"OOM"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif body.startswith(b"HANG"):
            # With Python's lock held, as a decoder does that loops for ever.
            ctypes.PyDLL(None).sleep(600)
        elif body.startswith(b"SLOW"):
            time.sleep(SLOW_S)
        elif body.startswith(b"RAISE"):
            raise ValueError("a bug in the detector")


def found_in(body: bytes) -> LabelledImage:
    """0 to 4 boxes on 640 x 480 px, by falling score; with NaN where the body begins with NAN."""
    digest = np.frombuffer(hashlib.sha256(body).digest(), np.uint8)
    count = int(digest[0]) % 5
    left_top, size, scores, class_ids = np.split(digest[1:29].reshape(7, 4)[:, :count], (2, 4, 5))
    boxes = np.concatenate((left_top, left_top + size + 1)).T.astype(np.float32)
    if body.startswith(b"NAN"):
        count, boxes = max(count, 1), np.full((max(count, 1), 4), np.nan, np.float32)
    return LabelledImage(640, 480, boxes, scores[0], class_ids[0])

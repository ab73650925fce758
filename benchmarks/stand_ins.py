"""Stand-ins for what a pipeline spends its time on, so that what is left is the pipeline itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.detectors import DetectorSettings, LabelledImage
from pipelines.errors import RunStoppedError
from pipelines.labelling import FETCHED, PART_KEYS

BOXES_PER_IMAGE = 3
IMAGE_BYTES = 150_000
"""What a photo of 640 x 480 px weighs; listings say so of every image that is not there."""


def fetch_nothing(listed: pa.Table) -> pa.Table:
    """From (part, part_rows, image_uri, etag, size_bytes) to schema.FETCHED, without any bytes."""
    rows = len(listed)
    given = {name: listed[name] for name in (*PART_KEYS, "image_uri", "etag", "size_bytes")}
    nothing = {
        "data": pa.array([b""] * rows, pa.large_binary()),
        "error_kind": pa.nulls(rows),
        "error_message": pa.nulls(rows),
        "fetch_seconds": np.zeros(rows),
        "retries": np.zeros(rows, np.int32),
    }
    return pa.Table.from_pydict(given | nothing, schema=FETCHED)


@dataclass(frozen=True)
class FetchSome:
    """Fetches nothing, and stops the run at a part that is beyond these."""

    parts: int

    def __call__(self, listed: pa.Table) -> pa.Table:
        if listed["part"][0].as_py() >= self.parts:
            raise RunStoppedError("enough parts are done")
        return fetch_nothing(listed)


class BlindDetector:
    """An ImageDetector that says the same of every image, without a look at it."""

    class_names = ("cat", "dog", "bird")

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        """Anything will do as a checkpoint."""
        corners = np.arange(4 * BOXES_PER_IMAGE, dtype=np.float32).reshape(4, BOXES_PER_IMAGE)
        self._answer = LabelledImage(
            width=640,
            height=480,
            boxes_xyxy=corners.T,
            scores=np.linspace(0.9, 0.1, BOXES_PER_IMAGE, dtype=np.float32),
            class_ids=np.arange(BOXES_PER_IMAGE),
        )

    def __call__(self, bodies: Sequence[bytes]) -> list[LabelledImage]:
        return [self._answer] * len(bodies)


class SleepingGPU(BlindDetector):
    """A GPU that does nothing, in the time that a fast one takes: 64 images in 12.8 ms."""

    images_per_second = 5000
    batch_size = 64

    def prepare(self, bodies: Sequence[bytes]) -> Sequence[bytes]:
        return bodies

    def detect(self, prepared: Sequence[bytes]) -> list[LabelledImage]:
        for start in range(0, len(prepared), self.batch_size):
            count = len(prepared[start : start + self.batch_size])
            time.sleep(count / self.images_per_second)
        return self(prepared)

"""YoloxDetector: one loaded model that turns the bytes of images into boxes on them."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.detectors.canvases import Canvases, CanvasPool
from pipelines.detectors.contract import LABEL, DetectorSettings, LabelledImage
from pipelines.detectors.fitting import FittingModel
from pipelines.detectors.runtimes.contract import Found, load_runtime_class
from pipelines.photos import Box, ErrorKind, ImageError, Photo, decode_for_canvas
from yolox_core import LetterboxTransform, letterbox

_Finish: TypeAlias = Callable[[], Sequence[Found | ImageError]]


class _Placed(NamedTuple):
    """A photo that lies on its canvas."""

    way: LetterboxTransform
    there: Box | None
    """The part of the photo that its file has, in the photo's pixels; None for all of it."""
    decoded_share: float | None

    def to_photo(self, boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, 4), pixels of the canvas to those of the photo; clipped to what of it is there."""
        boxes = self.way.to_original(boxes_xyxy)
        if self.there is None:
            return boxes
        x1, y1, x2, y2 = self.there
        return boxes.clip((x1, y1, x1, y1), (x2, y2, x2, y2)).astype(boxes.dtype)


@dataclass(frozen=True)
class _Batch:
    """Images that pass through the model together; threads decode them."""

    canvases: Canvases
    decoded: "Sequence[Future[_Placed | ImageError]]"
    """How each lies on its canvas."""

    def give_back(self) -> None:
        wait(self.decoded)
        self.canvases.give_back()


class YoloxDetector:
    """YOLOX as a ReadAheadDetector, run by whatever the settings name.

    Decodes in threads while the model runs.
    """

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        # Ray decides how many cores a process may use; OpenCV would take them all.
        cv2.setNumThreads(1)
        self.settings = settings
        runtime = load_runtime_class(settings.runtime, settings.device)
        self._runtime = runtime(checkpoint, settings)
        self.class_names = self._runtime.class_names
        self._model = FittingModel(self._runtime)
        self._canvases = CanvasPool(self._runtime.new_canvases)
        self._pool = ThreadPoolExecutor(settings.threads)

    def __call__(self, bodies: Sequence[bytes]) -> list[LabelledImage | ImageError]:
        """What is in each image, or why that cannot be known; in the order given."""
        return list(self.detect(self.prepare(bodies)))

    def prepare(self, bodies: Sequence[bytes]) -> list[_Batch]:
        """Begin to decode images."""
        size = self._runtime.batch_size
        return [self._decoding(bodies[at : at + size]) for at in range(0, len(bodies), size)]

    def detect(self, prepared: Sequence[_Batch]) -> Iterator[LabelledImage | ImageError]:
        """What is in each image that was prepared, in their order."""
        begun: deque[tuple[_Batch, _Finish]] = deque()
        try:
            for batch in prepared:
                begun.append((batch, self._begin(batch)))
                if len(begun) > 1:  # the model has something to do while we wait for it
                    yield from self._answers(*begun.popleft())
            for batch, finish in begun:
                yield from self._answers(batch, finish)
        finally:
            for batch in prepared:
                batch.give_back()

    def _decoding(self, bodies: Sequence[bytes]) -> _Batch:
        canvases = self._canvases.lend()
        rows = range(len(bodies))
        decoded = [self._pool.submit(self._prepare, bodies[row], canvases, row) for row in rows]
        return _Batch(canvases, decoded)

    def _prepare(self, body: bytes, canvases: Canvases, row: int) -> _Placed | ImageError:
        try:
            photo = self._decode(body)
            size, convention = self.settings.input_size, self._runtime.preprocessing
            canvas = canvases.rows()[row]
            _, way = letterbox(photo.pixels, size, convention, original_size=photo.size, out=canvas)
            return _Placed(way, photo.there, photo.decoded_share)
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(ErrorKind.OUT_OF_MEMORY, "not enough memory to decode it")
        except Exception as error:  # whatever one file does to a decoder, it costs one row
            return ImageError(ErrorKind.CORRUPT, f"{type(error).__name__}: {error}")

    def _decode(self, body: bytes) -> Photo:
        canvas = None if self.settings.full_decode else self.settings.input_size
        partly = self.settings.truncated == LABEL
        return decode_for_canvas(body, self.settings.max_pixels, canvas, partly=partly)

    def _begin(self, batch: _Batch) -> _Finish:
        placed = [photo.result() for photo in batch.decoded]
        rows = [row for row, photo in enumerate(placed) if isinstance(photo, _Placed)]
        if not rows:
            return list
        canvases = batch.canvases.rows()[: len(placed)]
        # As they lie, if they can be: a choice of them is a copy.
        return self._model.begin(canvases if len(rows) == len(placed) else canvases[rows])

    def _answers(self, batch: _Batch, finish: _Finish) -> Iterator[LabelledImage | ImageError]:
        found = iter(finish())
        batch.give_back()
        for placed in batch.decoded:
            yield _on_the_photo(found, placed.result())


def _on_the_photo(
    found: Iterator[Found | ImageError], placed: _Placed | ImageError
) -> LabelledImage | ImageError:
    """The next of what was found, if there were pixels to look at."""
    if isinstance(placed, ImageError):
        return placed
    of_canvas = next(found)
    if isinstance(of_canvas, ImageError):
        return of_canvas
    height, width = placed.way.original_size
    boxes = placed.to_photo(of_canvas.boxes_xyxy)
    return LabelledImage(
        width, height, boxes, of_canvas.scores, of_canvas.class_ids, placed.decoded_share
    )

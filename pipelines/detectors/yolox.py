"""YoloxDetector: one loaded model that turns the bytes of images into boxes on them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np

from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.detectors.runtimes.contract import Found, load_runtime_class
from pipelines.photos import ErrorKind, ImageError, Photo, Pixels, decode_for_canvas, decode_image
from yolox_core import LetterboxTransform, letterbox

BATCHES_BEFORE_DOUBLING = 16
"""Of a size that fits, until twice the size is tried again; one pass is lost if it still fails."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Prepared:
    canvas: Pixels
    transform: LetterboxTransform


class _BatchSize:
    """How many images pass through the model at once: fewer when memory runs out, later more."""

    def __init__(self, largest: int) -> None:
        self.current = largest
        self._largest = largest
        self._successes = 0

    def halve(self, failed: int) -> None:
        """After a batch of `failed` images, more than one, did not fit."""
        self.current = failed // 2
        self._successes = 0

    def count_success(self) -> None:
        self._successes += 1
        if self._successes % BATCHES_BEFORE_DOUBLING == 0:
            self.current = min(2 * self.current, self._largest)


class YoloxDetector:
    """YOLOX as an ImageDetector, run by whatever the settings name.

    Decodes in threads while the model runs. Where a batch does not fit into memory it is halved,
    down to one image, which is then `out_of_memory`.
    """

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        # Ray decides how many cores a process may use; OpenCV would take them all.
        cv2.setNumThreads(1)
        self.settings = settings
        self._runtime = load_runtime_class(settings.runtime)(checkpoint, settings)
        self.class_names = self._runtime.class_names
        self._batch_size = _BatchSize(settings.batch_size)
        self._pool = ThreadPoolExecutor(settings.threads)

    def __call__(self, bodies: Sequence[bytes]) -> list[LabelledImage | ImageError]:
        """What is in each image, or why that cannot be known; in the order given."""
        # map() starts every decoding at once and gives results in order: the pool decodes the next
        # images while the model is busy with these.
        prepared = self._pool.map(self._prepare, bodies)
        return [
            result
            for batch in _batched(prepared, self.settings.batch_size)
            for result in self._detect_batch(batch)
        ]

    def _prepare(self, body: bytes) -> _Prepared | ImageError:
        try:
            photo, size = self._decode(body), self.settings.input_size
            convention = self._runtime.preprocessing
            return _Prepared(*letterbox(photo.pixels, size, convention, original_size=photo.size))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(ErrorKind.OUT_OF_MEMORY, "not enough memory to decode it")
        except Exception as error:  # whatever one file does to a decoder, it costs one row
            return ImageError(ErrorKind.CORRUPT, f"{type(error).__name__}: {error}")

    def _decode(self, body: bytes) -> Photo:
        if self.settings.full_decode:
            return Photo.whole(decode_image(body, self.settings.max_pixels))
        return decode_for_canvas(body, self.settings.max_pixels, self.settings.input_size)

    def _detect_batch(
        self, batch: Sequence[_Prepared | ImageError]
    ) -> Iterator[LabelledImage | ImageError]:
        decoded = [item for item in batch if isinstance(item, _Prepared)]
        detections = iter(self._forward_what_fits([item.canvas for item in decoded]))
        for item in batch:
            if isinstance(item, ImageError):
                yield item
                continue
            found = next(detections)
            yield found if isinstance(found, ImageError) else _on_the_photo(found, item.transform)

    def _forward_what_fits(self, canvases: Sequence[Pixels]) -> list[Found | ImageError]:
        found: list[Found | ImageError] = []
        while len(found) < len(canvases):
            batch = canvases[len(found) : len(found) + self._batch_size.current]
            try:
                found += self._forward(batch)
                self._batch_size.count_success()
            # The next try comes after this block: the error holds the tensors of the failed one.
            except MemoryError as error:
                if len(batch) > 1:
                    self._batch_size.halve(len(batch))
                else:
                    found.append(ImageError(ErrorKind.OUT_OF_MEMORY, f"in the model: {error}"))
        return found

    def _forward(self, canvases: Sequence[Pixels]) -> list[Found | ImageError]:
        no_number = ImageError(ErrorKind.NOT_FINITE, "the model gave NaN or infinity")
        found = self._runtime(np.stack(canvases))
        return [no_number if of_one is None else of_one for of_one in found]


def _on_the_photo(found: Found, transform: LetterboxTransform) -> LabelledImage:
    height, width = transform.original_size
    boxes = transform.to_original(found.boxes_xyxy)
    return LabelledImage(width, height, boxes, found.scores, found.class_ids)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch

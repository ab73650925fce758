"""YoloxDetector: one loaded model that turns the bytes of images into boxes on them."""

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.photos import ErrorKind, ImageError, Pixels, decode_image
from yolox_core import (
    Detections,
    LetterboxTransform,
    fuse_conv_bn,
    letterbox,
    load_checkpoint,
    postprocess_raw,
    to_model_input,
)

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
    """YOLOX as an ImageDetector.

    Decodes in threads while the model runs: in float32 on a CPU, in bfloat16 on a GPU. Where a
    batch does not fit into memory it is halved, down to one image, which is then `out_of_memory`.
    """

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        # Ray decides how many cores a process may use; OpenCV and torch would each take them all.
        cv2.setNumThreads(1)
        torch.set_num_threads(settings.threads)
        loaded = load_checkpoint(io.BytesIO(checkpoint))
        self.settings = settings
        self.class_names = loaded.class_names
        self._preprocessing = loaded.preprocessing
        self._device = torch.device(settings.device)
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        model = fuse_conv_bn(loaded.model).to(self._device, self._dtype)
        self._model = model.to(memory_format=torch.channels_last)
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
            pixels = decode_image(body, self.settings.max_pixels)
            return _Prepared(*letterbox(pixels, self.settings.input_size, self._preprocessing))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(ErrorKind.OUT_OF_MEMORY, "not enough memory to decode it")
        except Exception as error:  # whatever one file does to a decoder, it costs one row
            return ImageError(ErrorKind.CORRUPT, f"{type(error).__name__}: {error}")

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

    def _forward_what_fits(self, canvases: Sequence[Pixels]) -> list[Detections | ImageError]:
        found: list[Detections | ImageError] = []
        while len(found) < len(canvases):
            batch = canvases[len(found) : len(found) + self._batch_size.current]
            try:
                found += self._forward(batch)
                self._batch_size.count_success()
            # The next try comes after this block: the error holds the tensors of the failed one.
            except (torch.OutOfMemoryError, MemoryError) as error:
                if len(batch) > 1:
                    self._batch_size.halve(len(batch))
                else:
                    found.append(ImageError(ErrorKind.OUT_OF_MEMORY, f"in the model: {error}"))
        return found

    @torch.inference_mode()
    def _forward(self, canvases: Sequence[Pixels]) -> list[Detections | ImageError]:
        batch = torch.from_numpy(np.stack(canvases)).to(self._device)
        images = to_model_input(batch, self._preprocessing).to(self._dtype)
        raw = self._model(images)
        detections = postprocess_raw(
            raw, self.settings.score_threshold, self.settings.nms_threshold
        )
        return [
            found if finite else ImageError(ErrorKind.NOT_FINITE, "the model gave NaN or infinity")
            for found, finite in zip(detections, _are_finite(raw), strict=True)
        ]


def _are_finite(raw: Sequence[Tensor]) -> list[bool]:
    """Whether all raw outputs of each image are finite; postprocessing drops what is not."""
    # One NaN or infinity makes the sum NaN or infinite, and a sum is cheaper than a look at each.
    sums = [level.sum(dim=(1, 2, 3), dtype=torch.float32) for level in raw]
    finite: list[bool] = torch.stack(sums).isfinite().all(dim=0).tolist()
    return finite


def _on_the_photo(detections: Detections, transform: LetterboxTransform) -> LabelledImage:
    height, width = transform.original_size
    boxes = transform.to_original(detections.boxes_xyxy.numpy())
    return LabelledImage(
        width, height, boxes, detections.scores.numpy(), detections.class_ids.numpy()
    )


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch

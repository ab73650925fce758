"""Detector: one loaded model that turns the bytes of images into boxes on them."""

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipelines.images import ErrorKind, ImageError, Pixels, decode_image
from pipelines.schema import DETECTED, FOUND
from yolox_core import (
    Detections,
    LetterboxTransform,
    fuse_conv_bn,
    letterbox,
    load_checkpoint,
    postprocess_raw,
    to_model_input,
)

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What a Detector needs to know besides its weights."""

    input_size: tuple[int, int]
    """(height, width) of the canvas, in pixels."""
    score_threshold: float
    nms_threshold: float
    max_pixels: int
    batch_size: int
    """Images in one forward pass."""
    threads: int
    """For decoding, and for the model where it has no GPU."""
    device: str
    """"cpu" or "cuda", as torch names it."""


@dataclass(frozen=True)
class LabelledImage:
    """What was found in one image."""

    width: int
    height: int
    boxes_xyxy: npt.NDArray[np.float32]
    """(N, 4) pixels of the original image, clipped to it."""
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Prepared:
    canvas: Pixels
    transform: LetterboxTransform


class Detector:
    """Decodes in threads while the model runs: in float32 on a CPU, in bfloat16 on a GPU."""

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        # Ray decides how many cores a process may use; OpenCV and torch would each take them all.
        cv2.setNumThreads(1)
        torch.set_num_threads(settings.threads)
        loaded = load_checkpoint(io.BytesIO(checkpoint))
        self.settings = settings
        self.class_names = pa.array(loaded.class_names)
        self._preprocessing = loaded.preprocessing
        self._device = torch.device(settings.device)
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        model = fuse_conv_bn(loaded.model).to(self._device, self._dtype)
        self._model = model.to(memory_format=torch.channels_last)
        self._pool = ThreadPoolExecutor(settings.threads)

    def __call__(self, fetched: pa.Table) -> pa.Table:
        """From schema.FETCHED to schema.DETECTED, one row per image."""
        started = time.perf_counter()
        results = self.detect(_bodies(fetched))
        seconds = (time.perf_counter() - started) / max(len(results), 1)
        return self._to_table(fetched, results, seconds)

    def detect(self, bodies: Sequence[bytes | ImageError]) -> list[LabelledImage | ImageError]:
        """What is in each image, or why that cannot be known; in the order given.

        Args:
            bodies: the bytes of image files; an error is passed on as it is.
        """
        # map() starts every decoding at once and gives results in order: the pool decodes the next
        # images while the model is busy with these.
        prepared = self._pool.map(self._prepare, bodies)
        return [
            result
            for batch in _batched(prepared, self.settings.batch_size)
            for result in self._detect_batch(batch)
        ]

    def _prepare(self, body: bytes | ImageError) -> _Prepared | ImageError:
        if isinstance(body, ImageError):
            return body
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
        detections = iter(self._forward([item.canvas for item in decoded]))
        for item in batch:
            if isinstance(item, ImageError):
                yield item
            else:
                yield _on_the_photo(next(detections), item.transform)

    @torch.inference_mode()
    def _forward(self, canvases: Sequence[Pixels]) -> list[Detections]:
        if not canvases:
            return []
        batch = torch.from_numpy(np.stack(canvases)).to(self._device)
        images = to_model_input(batch, self._preprocessing).to(self._dtype)
        return postprocess_raw(
            self._model(images), self.settings.score_threshold, self.settings.nms_threshold
        )

    def _to_table(
        self,
        fetched: pa.Table,
        results: Sequence[LabelledImage | ImageError],
        seconds_per_image: float,
    ) -> pa.Table:
        images = [None if isinstance(result, ImageError) else result for result in results]
        errors = [result if isinstance(result, ImageError) else None for result in results]
        columns = {
            "image_uri": fetched["image_uri"],
            "etag": fetched["etag"],
            "size_bytes": fetched["size_bytes"],
            "width": [image and image.width for image in images],
            "height": [image and image.height for image in images],
            "error_kind": [error and str(error.kind) for error in errors],
            "error_message": [error and str(error) for error in errors],
            "found": self._found([image for image in images if image], images),
            "labelled_at": [datetime.now(UTC)] * len(results),
            "fetch_seconds": fetched["fetch_seconds"],
            "detect_seconds": [seconds_per_image] * len(results),
        }
        return pa.Table.from_pydict(columns, schema=DETECTED)

    def _found(
        self, labelled: Sequence[LabelledImage], images: Sequence[LabelledImage | None]
    ) -> pa.ListArray:
        """(images,) lists of schema.FOUND; an empty list for an image that failed."""
        counts = [len(image.scores) if image else 0 for image in images]
        offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int32)
        boxes = np.concatenate([np.empty((0, 4), np.float32), *(i.boxes_xyxy for i in labelled)])
        scores = np.concatenate([np.empty(0, np.float32), *(i.scores for i in labelled)])
        class_ids = np.concatenate([np.empty(0, np.int64), *(i.class_ids for i in labelled)])
        class_ids = class_ids.astype(np.int32)
        names = pa.DictionaryArray.from_arrays(class_ids, self.class_names)
        columns = [pa.array(class_ids), names, pa.array(scores), *map(pa.array, boxes.T)]
        structs = pa.StructArray.from_arrays(columns, fields=list(FOUND))
        return pa.ListArray.from_arrays(offsets, structs)


def _bodies(fetched: pa.Table) -> list[bytes | ImageError]:
    columns = (fetched[name].to_pylist() for name in ("data", "error_kind", "error_message"))
    return [
        ImageError(ErrorKind(kind), message) if kind else data
        for data, kind, message in zip(*columns, strict=True)
    ]


def _on_the_photo(detections: Detections, transform: LetterboxTransform) -> LabelledImage:
    height, width = transform.original_size
    boxes = transform.to_original(detections.boxes_xyxy.numpy())
    # What lies in the canvas's padding has no area on the photo.
    on_it = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return LabelledImage(
        width,
        height,
        boxes[on_it],
        detections.scores.numpy()[on_it],
        detections.class_ids.numpy()[on_it],
    )


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch

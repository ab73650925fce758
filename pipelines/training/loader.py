"""From a training table to batches: which images in which order, fetched, decoded and cached."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import InputError
from pipelines.photos import ErrorKind, ImageError, ImageRef, Pixels, decode_for_canvas, fetch
from pipelines.training import process_group
from pipelines.training.data import (
    MAX_IMAGE_BYTES,
    MAX_PIXELS,
    refuse_another_size,
    refuse_passing_error,
)
from pipelines.training.photo_cache import Fetch
from yolox_core import Convention, letterbox

BATCHES_AHEAD = 3
"""Batches that are loaded before they are asked for."""

MAX_SUBSTITUTES = 64
"""Images that are tried in place of a batch without a good one, before the run is given up."""

Targets = NDArray[np.float32]
"""(M, 5) class_id, cx, cy, w, h in letterboxed pixels."""


def steps_per_epoch(num_images: int, total_batch_size: int) -> int:
    """Steps that show every image at least once."""
    return math.ceil(num_images / total_batch_size)


def epoch_rows(
    num_images: int, batch_size: int, *, seed: int, epoch: int, rank: int, world_size: int
) -> NDArray[np.int64]:
    """What one worker sees in one epoch, always the same for the same arguments.

    A worker keeps to its own shard, every `world_size`-th image, so that it decodes and caches
    each of its images once. The shard is shuffled anew in each epoch and starts over where it ends
    in the middle of a batch.

    Args:
        num_images: of the table, at least `world_size`.
        batch_size: of one worker.

    Returns:
        (steps, batch_size) rows of the table.
    """
    shard = np.arange(rank, num_images, world_size)
    shuffled = np.random.default_rng([seed, epoch, rank]).permutation(shard)
    steps = steps_per_epoch(num_images, batch_size * world_size)
    return np.resize(shuffled, (steps, batch_size))


@dataclass(frozen=True)
class Batch:
    """Images and their targets. All but the canvases is on the CPU."""

    uris: tuple[str, ...]
    canvases: Tensor
    """(B, H, W, 3) uint8 BGR, letterboxed."""
    content: Tensor
    """(B, 4) int64 xyxy of the image on its canvas; the rest is padding."""
    targets: Tensor
    """(B, M, 5) float32 class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as padding."""

    def with_canvases_on(self, device: torch.device) -> "Batch":
        """The same batch for a device, which copies while the CPU goes on."""
        return replace(self, canvases=self.canvases.to(device, non_blocking=True))


def joined_labels(batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """Content (N, 4) and targets (N, M, 5) of all images of the batches."""
    widest = max(batch.targets.shape[1] for batch in batches)
    padded = [F.pad(b.targets, (0, 0, 0, widest - b.targets.shape[1])) for b in batches]
    return torch.cat([batch.content for batch in batches]), torch.cat(padded)


@dataclass(frozen=True)
class _Example:
    uri: str
    canvas: Pixels
    content: tuple[int, int, int, int]
    targets: Targets


class BatchLoader:
    """Fetches, decodes and letterboxes images; keeps what fits into its cache."""

    def __init__(
        self,
        table: pa.Table,
        input_size: tuple[int, int],
        preprocessing: Convention,
        *,
        max_cache_bytes: int,
        threads: int,
        fetch: Fetch = fetch,
        for_gpu: bool = False,
    ) -> None:
        """`for_gpu`: batches are made, and copied to it from pinned memory, while it works."""
        self.broken: dict[str, ImageError] = {}
        """Images met so far that can never be used, by their URI."""
        self.stage_seconds = {"fetching": 0.0, "decoding": 0.0}
        """Wall time that loading took so far."""
        self._uris: list[str] = table["image_uri"].to_pylist()
        self._photos = list(map(ImageRef, self._uris, table["etag"].to_pylist()))
        self._fetch_photos = fetch
        self._table = table
        self._input_size = input_size
        self._preprocessing = preprocessing
        # Images are spread over the pool's threads; OpenCV's own would take the model's cores.
        cv2.setNumThreads(1)
        self._pool = ThreadPoolExecutor(threads)
        self._for_gpu = for_gpu
        self._cache: dict[int, _Example] = {}
        # All canvases have one size; targets are small beside them.
        self._max_cached = max_cache_bytes // (3 * math.prod(input_size))

    def iterate(self, rows_of_batches: NDArray[np.int64]) -> Iterator[Batch]:
        """The batches in their order; the next ones are fetched while the model is busy.

        They are decoded meanwhile too where the model is on a GPU. On a CPU that takes longer than
        to decode with all threads in between: threads of a model wait for the one that shares its
        core.
        """
        # Two at a time, so that one is fetched while another is decoded.
        with ThreadPoolExecutor(2) as ahead:

            def begin(rows: list[int]) -> Callable[[], Batch]:
                if self._for_gpu:
                    return ahead.submit(self.load, rows).result
                bodies = ahead.submit(self._fetch, rows)
                return lambda: self._make(rows, bodies.result())

            pending: deque[Callable[[], Batch]] = deque()
            for rows in rows_of_batches:
                pending.append(begin(rows.tolist()))
                if len(pending) > BATCHES_AHEAD:
                    yield pending.popleft()()
            while pending:
                yield pending.popleft()()

    def load(self, rows: Sequence[int]) -> Batch:
        """One batch, in the order of the rows.

        Broken images go to `broken`, and the batch's good ones are repeated in their place, or
        another image where it has none: all workers must make the same steps, and so need full
        batches. Equal rows give equal batches, whoever loads them and when.

        Raises:
            RunStoppedError: an image cannot be read for the moment.
            InputError: none of the images can be used, nor of those tried in their place.
        """
        return self._make(rows, self._fetch(rows))

    def _fetch(self, rows: Sequence[int]) -> dict[int, bytes | ImageError]:
        """The files of those rows that are neither cached nor known to be broken, by row."""
        missing = [
            row
            for row in dict.fromkeys(rows)
            if row not in self._cache and self._uris[row] not in self.broken
        ]
        with self._measured("fetching"):
            fetched = self._fetch_photos([self._photos[row] for row in missing], MAX_IMAGE_BYTES)
        return {row: photo.body for row, photo in zip(missing, fetched, strict=True)}

    def _make(self, rows: Sequence[int], bodies: Mapping[int, bytes | ImageError]) -> Batch:
        """The batch of these rows, of which `bodies` has the files that were missing."""
        examples = self._examples(rows, bodies)
        good = [examples[row] for row in rows if row in examples] or [self._substitute(rows)]
        batch = _collate([good[index % len(good)] for index in range(len(rows))])
        return replace(batch, canvases=batch.canvases.pin_memory()) if self._for_gpu else batch

    def _examples(
        self, rows: Sequence[int], bodies: Mapping[int, bytes | ImageError]
    ) -> dict[int, _Example]:
        """The good images of these rows, of which `bodies` has the files that were missing."""
        with self._measured("decoding"):
            decoded = self._decode(list(bodies), list(bodies.values()))
        return {row: self._cache[row] for row in rows if row in self._cache} | decoded

    def _substitute(self, rows: Sequence[int]) -> _Example:
        """A good image for a batch that has none: of its worker's shard, drawn by its rows."""
        shards = process_group.world_size()
        shard = np.arange(rows[0] % shards, len(self._uris), shards)
        drawn = np.random.default_rng(rows).permutation(shard)[:MAX_SUBSTITUTES].tolist()
        for row in drawn:
            if found := self._examples([row], self._fetch([row])):
                return found[row]
        uri = self._uris[rows[0]]
        raise InputError(
            f"not one of the {len(rows)} images of a batch can be used, nor of {len(drawn)} others "
            f"that were tried in their place; {uri}, {self.broken[uri].kind}: {self.broken[uri]}: "
            "mend that, or leave such images out of the training table"
        )

    def _decode(
        self, rows: Sequence[int], bodies: Sequence[bytes | ImageError]
    ) -> dict[int, _Example]:
        fetched: dict[int, _Example] = {}
        for row, result in zip(rows, self._pool.map(self._prepare, rows, bodies), strict=True):
            if isinstance(result, ImageError):
                refuse_passing_error(self._uris[row], result)
                self.broken[self._uris[row]] = result
                continue
            fetched[row] = result
            if len(self._cache) < self._max_cached:
                self._cache[row] = result
        return fetched

    def _prepare(self, row: int, body: bytes | ImageError) -> _Example | ImageError:
        if isinstance(body, ImageError):
            return body
        values = self._table.slice(row, 1).to_pylist()[0]
        try:
            # What augmentation enlarges is the canvas: it never asks for more of the photo.
            photo = decode_for_canvas(body, MAX_PIXELS, self._input_size)
            height, width = photo.size
            refuse_another_size((width, height), (values["width"], values["height"]))
            canvas, transform = letterbox(
                photo.pixels, self._input_size, self._preprocessing, original_size=photo.size
            )
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(ErrorKind.OUT_OF_MEMORY, "not enough memory to decode it")
        except Exception as error:  # whatever one file does to a decoder, it costs one image
            return ImageError(ErrorKind.CORRUPT, f"{type(error).__name__}: {error}")
        boxes, class_ids = _boxes_of(values)
        boxes = transform.to_letterboxed(boxes.clip(0, (width, height, width, height)))
        targets = _targets(boxes, class_ids)
        return _Example(self._uris[row], canvas, transform.content_xyxy, targets)

    @contextmanager
    def _measured(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.stage_seconds[stage] += time.perf_counter() - started


def _boxes_of(row: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """(M, 4) xyxy in original pixels and (M,) class ids, without crowds."""
    single = ~np.array(row["is_crowd"], bool)
    boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
    return boxes[single], np.array(row["class_ids"], np.int32)[single]


def _targets(boxes_xyxy: NDArray[np.float32], class_ids: NDArray[np.int32]) -> Targets:
    """Boxes without area are left out."""
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    centres = (boxes_xyxy[:, 2:] + boxes_xyxy[:, :2]) / 2
    targets = np.concatenate([class_ids[:, None], centres, sizes], axis=1, dtype=np.float32)
    return targets[(sizes > 0).all(axis=1)]


def _collate(examples: Sequence[_Example]) -> Batch:
    targets = np.zeros((len(examples), max(len(e.targets) for e in examples), 5), np.float32)
    for padded, example in zip(targets, examples, strict=True):
        padded[: len(example.targets)] = example.targets
    return Batch(
        uris=tuple(example.uri for example in examples),
        canvases=torch.from_numpy(np.stack([example.canvas for example in examples])),
        content=torch.tensor([example.content for example in examples]),
        targets=torch.from_numpy(targets),
    )

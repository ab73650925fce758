"""CudaRuntime: YOLOX by torch on a GPU that is not kept waiting.

Canvases go up as uint8 on a stream of their own, from memory that is pinned. Everything from them
to what is kept of the boxes is one CUDA graph; only its answer comes down, and the host waits once
for it, while the GPU is busy with the next batch.
"""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipelines.detectors.contract import DetectorSettings
from pipelines.detectors.runtimes.contract import Found
from pipelines.detectors.runtimes.torch_runtime import TorchRuntime, are_finite
from pipelines.photos import Pixels
from yolox_core import postprocess_padded

_LANES = 2
"""Batches that may be begun and not finished."""
_LARGEST_BATCH = 64
"""Of more a large GPU is no faster, and the canvases weigh 1.2 MB each at 640 px."""
_SHARE_OF_MEMORY = 0.4
"""Of what is free, for what a batch needs on its way through the model."""
_TRIED_BATCH = 4


class CudaRuntime:
    """Reads checkpoints; computes in bfloat16, always on whole batches."""

    def __init__(self, weights: bytes, settings: DetectorSettings) -> None:
        self._eager = TorchRuntime(weights, settings)
        self.class_names = self._eager.class_names
        self.preprocessing = self._eager.preprocessing
        self._settings = settings
        self.batch_size = settings.batch_size or self._fitting_batch_size()
        self._lanes = cycle(self._lanes_that_fit())

    def new_canvases(self) -> Pixels:
        canvases: Pixels = torch.empty(self._shape, dtype=torch.uint8, pin_memory=True).numpy()
        return canvases

    def begin(self, canvases: Pixels) -> Callable[[], list[Found | None]]:
        lane = next(self._lanes)
        lane.begin(canvases)
        return partial(self._finish, lane, canvases)

    def _finish(self, lane: "_Lane", canvases: Pixels) -> list[Found | None]:
        boxes, flags = lane.finish()
        found: list[Found | None] = []
        for canvas, rows, (is_finite, is_complete) in zip(canvases, boxes, flags, strict=False):
            if is_finite and not is_complete:  # a crowd, which the graph has no room for
                found += self._eager.detect(canvas[None])
            else:
                found.append(_kept(rows) if is_finite else None)
        return found

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return (self.batch_size, *self._settings.input_size, 3)

    @torch.inference_mode()
    def _answer(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 6) float32 x1, y1, x2, y2, score or -1, class; (B, 2) finite and complete."""
        raw = self._eager.forward(canvases)
        thresholds = self._settings.score_threshold, self._settings.nms_threshold
        padded = postprocess_padded(raw, *thresholds)
        scores = padded.scores.masked_fill(~padded.kept, -1)
        rows = (padded.boxes_xyxy, scores[..., None], padded.class_ids[..., None].float())
        return torch.cat(rows, dim=-1), torch.stack((are_finite(raw), padded.is_complete), dim=1)

    def _fitting_batch_size(self) -> int:
        """A power of two, by what some images need and what the GPU has free."""
        some = torch.zeros((_TRIED_BATCH, *self._settings.input_size, 3), dtype=torch.uint8)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self._answer(some.to(self._eager.device))
        for_each = (torch.cuda.max_memory_allocated() - before) / _TRIED_BATCH
        free, _ = torch.cuda.mem_get_info()
        fitting = max(1, min(_LARGEST_BATCH, int(_SHARE_OF_MEMORY * free / for_each)))
        return 1 << (fitting.bit_length() - 1)

    def _lanes_that_fit(self) -> "list[_Lane]":
        while True:
            try:
                pool = torch.cuda.graph_pool_handle()
                stream = _new(torch.cuda.Stream)
                return [_Lane(self._answer, self._shape, pool, stream) for _ in range(_LANES)]
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
            self.batch_size //= 2  # out of the block, whose error holds the memory
            torch.cuda.empty_cache()


def _kept(rows: npt.NDArray[np.float32]) -> Found:
    kept = rows[rows[:, 4] >= 0]
    return Found(kept[:, :4], kept[:, 4], kept[:, 5].astype(np.int64))


_Created = TypeVar("_Created")


def _new(of_torch: Callable[[], _Created]) -> _Created:
    """Streams and events, whose constructors have no types of their own."""
    return of_torch()


class _Lane:
    """A batch on its way: where it lies on the GPU, the graph that looks at it, and its answer."""

    def __init__(
        self,
        answer: Callable[[Tensor], tuple[Tensor, Tensor]],
        shape: tuple[int, int, int, int],
        pool: Any,
        stream: torch.cuda.Stream,
    ) -> None:
        """Capture the graph.

        Args:
            answer: what is to be done; its results must have the same shapes whatever it is given.
            shape: of a batch, (B, H, W, 3).
            pool: memory that the graphs of all lanes share, as they run one after the other.
            stream: where they run so.
        """
        self._stream, self._copying = stream, _new(torch.cuda.Stream)
        self._copied, self._answered = _new(torch.cuda.Event), _new(torch.cuda.Event)
        self._canvases = torch.zeros(shape, dtype=torch.uint8, device="cuda")
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results = answer(self._canvases)  # libraries choose and load before they are captured
        # Beside the pool, whose memory is the next lane's as soon as this one's graph has run.
        self._results = [torch.empty_like(result) for result in results]
        self._on_host = [torch.empty_like(r, device="cpu", pin_memory=True) for r in results]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, as of a training's loader, may go on with what they do.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            for kept, result in zip(self._results, answer(self._canvases), strict=True):
                kept.copy_(result)

    def begin(self, canvases: Pixels) -> None:
        """Have (up to B, H, W, 3) canvases looked at; they must stay until it is finished."""
        batch = torch.from_numpy(canvases)
        with torch.cuda.stream(self._copying):
            self._canvases[: len(batch)].copy_(batch, non_blocking=True)
            self._copied.record()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._copied)
            self._graph.replay()
            for on_host, result in zip(self._on_host, self._results, strict=True):
                on_host.copy_(result, non_blocking=True)
            self._answered.record()

    def finish(self) -> list[npt.NDArray[np.generic]]:
        """The answer, once it is there; for all of the batch, so also for what was not given."""
        self._answered.synchronize()
        return [on_host.numpy().copy() for on_host in self._on_host]

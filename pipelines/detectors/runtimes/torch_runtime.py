"""TorchRuntime: YOLOX by torch, on a CPU. What a GPU needs besides is in CudaRuntime."""

import io
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from pipelines.detectors.contract import DetectorSettings
from pipelines.detectors.runtimes.contract import CPU_BATCH_SIZE, Found, new_canvases
from pipelines.photos import Pixels
from yolox_core import Detections, fuse_conv_bn, load_checkpoint, postprocess_raw, to_model_input


class TorchRuntime:
    """Reads checkpoints; computes in float32 on a CPU, in bfloat16 on a GPU."""

    def __init__(self, weights: bytes, settings: DetectorSettings) -> None:
        # Ray decides how many cores a process may use; torch would take them all.
        torch.set_num_threads(settings.threads)
        loaded = load_checkpoint(io.BytesIO(weights))
        self.class_names = loaded.class_names
        self.preprocessing = loaded.preprocessing
        self.batch_size = settings.batch_size or CPU_BATCH_SIZE
        self.settings = settings
        self.device = torch.device(settings.device)
        self._dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        model = fuse_conv_bn(loaded.model).to(self.device, self._dtype)
        self._model = model.to(memory_format=torch.channels_last)

    def new_canvases(self) -> Pixels:
        return new_canvases(self.batch_size, self.settings)

    def begin(self, canvases: Pixels) -> Callable[[], list[Found | None]]:
        return partial(self.detect, canvases)

    def forward(self, canvases: Tensor) -> list[Tensor]:
        """(B, H, W, 3) uint8 on the device to raw outputs, one (B, 5 + C, h, w) per level."""
        raw: list[Tensor] = self._model(
            to_model_input(canvases, self.preprocessing).to(self._dtype)
        )
        return raw

    @torch.inference_mode()
    def detect(self, canvases: Pixels) -> list[Found | None]:
        """What is on each canvas, at once; raises as `begin` does."""
        try:
            raw = self.forward(torch.from_numpy(canvases).to(self.device))
            thresholds = self.settings.score_threshold, self.settings.nms_threshold
            detections = postprocess_raw(raw, *thresholds)
            finite = are_finite(raw).tolist()
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        return [
            _in_numpy(found) if ok else None for found, ok in zip(detections, finite, strict=True)
        ]


def _in_numpy(found: Detections) -> Found:
    return Found(*(column.numpy() for column in found))


def are_finite(raw: Sequence[Tensor]) -> Tensor:
    """(B,) bool: whether all raw outputs are finite; postprocessing drops those that are not."""
    # One NaN or infinity makes the sum NaN or infinite, and a sum is cheaper than a look at each.
    sums = [level.sum(dim=(1, 2, 3), dtype=torch.float32) for level in raw]
    return torch.stack(sums).isfinite().all(dim=0)

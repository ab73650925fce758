"""TorchRuntime: YOLOX by torch, on a CPU or a GPU."""

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.detectors.contract import DetectorSettings
from pipelines.detectors.runtimes.contract import Found
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
        self._settings = settings
        self._device = torch.device(settings.device)
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        model = fuse_conv_bn(loaded.model).to(self._device, self._dtype)
        self._model = model.to(memory_format=torch.channels_last)

    def __call__(self, canvases: Pixels) -> list[Found | None]:
        try:
            return self._detect(canvases)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    @torch.inference_mode()
    def _detect(self, canvases: Pixels) -> list[Found | None]:
        batch = torch.from_numpy(canvases).to(self._device)
        raw = self._model(to_model_input(batch, self.preprocessing).to(self._dtype))
        detections = postprocess_raw(
            raw, self._settings.score_threshold, self._settings.nms_threshold
        )
        return [
            _in_numpy(found) if finite else None
            for found, finite in zip(detections, _are_finite(raw), strict=True)
        ]


def _in_numpy(found: Detections) -> Found:
    return Found(*(column.numpy() for column in found))


def _are_finite(raw: Sequence[Tensor]) -> list[bool]:
    """Whether all raw outputs of each image are finite; postprocessing drops what is not."""
    # One NaN or infinity makes the sum NaN or infinite, and a sum is cheaper than a look at each.
    sums = [level.sum(dim=(1, 2, 3), dtype=torch.float32) for level in raw]
    finite: list[bool] = torch.stack(sums).isfinite().all(dim=0).tolist()
    return finite

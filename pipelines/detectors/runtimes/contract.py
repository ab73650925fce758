"""What a runtime is: the contract between the detector and whatever runs its model.

No torch in here: a process that runs the model by something else need not load it.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.detectors.contract import ONNXRUNTIME, TORCH, DetectorSettings

if TYPE_CHECKING:  # fork servers of other people's detectors have no use for OpenCV
    from pipelines.photos import Pixels
    from yolox_core import Convention

_CLASSES = {
    (TORCH, "cpu"): "pipelines.detectors.runtimes.torch_runtime:TorchRuntime",
    (TORCH, "cuda"): "pipelines.detectors.runtimes.cuda_runtime:CudaRuntime",
    (ONNXRUNTIME, "cpu"): "pipelines.detectors.runtimes.onnx_runtime:OnnxRuntime",
}

CPU_BATCH_SIZE = 16
"""Of more canvases at once no CPU is faster."""


class Found(NamedTuple):
    """What the model found on one canvas, best first."""

    boxes_xyxy: npt.NDArray[np.float32]
    """(N, 4) letterboxed pixels; may reach beyond the canvas."""
    scores: npt.NDArray[np.float32]
    """(N,) in [0, 1], falling."""
    class_ids: npt.NDArray[np.int64]
    """(N,)"""

    def taken(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Found":
        return Found(self.boxes_xyxy[which], self.scores[which], self.class_ids[which])


def new_canvases(batch_size: int, settings: DetectorSettings) -> "Pixels":
    """(batch_size, H, W, 3) uint8 of ordinary memory, not filled."""
    return np.empty((batch_size, *settings.input_size, 3), np.uint8)


class Runtime(Protocol):
    """A loaded model, and what makes detections of its raw outputs.

    Both, since raw outputs are large, 2.9 MB an image at 640 px, and belong where they were made:
    of those on a GPU only what lies above the score threshold is worth the way.
    """

    class_names: Sequence[str]
    preprocessing: "Convention"
    """What the weights were trained with, which also says how canvases are letterboxed."""
    batch_size: int
    """The most canvases of a call."""

    def __init__(self, weights: bytes, settings: DetectorSettings) -> None:
        """Load the model.

        Args:
            weights: a file of the kind that this runtime reads.
            settings: size of the canvases, thresholds, threads and device.
        """

    def new_canvases(self) -> "Pixels":
        """(batch_size, H, W, 3) uint8, not filled, from where they reach the model best."""

    def begin(self, canvases: "Pixels") -> Callable[[], Sequence[Found | None]]:
        """Have the model look at canvases. One more batch may be begun before this one is finished.

        Args:
            canvases: (B, H, W, 3) uint8 BGR, letterboxed; not to be changed until it is finished.

        Returns:
            What finishes it: what is on each canvas, None where the model gave NaN or infinity.

        Raises:
            MemoryError: so many do not fit at once; the finish may raise it as well.
        """


def load_runtime_class(name: str, device: str) -> type[Runtime]:
    """The runtime of this name for "cpu" or "cuda"; what it needs is imported."""
    module, _, class_name = _CLASSES[name, device].partition(":")
    found: type[Runtime] = getattr(importlib.import_module(module), class_name)
    return found

"""What a detector is: the contract between the pipelines and any model, ours or a user's.

No torch in here: the processes that only hand images on need not wait for it.
"""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.errors import InputError
from pipelines.photos import ImageError

YOLOX = "yolox"
"""The name of our detector, in flags and in records."""

_CLASSES = {YOLOX: "pipelines.detectors.yolox:YoloxDetector"}

TORCH = "torch"
ONNXRUNTIME = "onnxruntime"
"""Runtimes: what runs YOLOX."""

FAIL = "fail"
LABEL = "label"
"""What becomes of a photo that was cut short."""


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What a detector needs to know besides its weights."""

    input_size: tuple[int, int]
    """(height, width) of the canvas, in pixels."""
    score_threshold: float
    nms_threshold: float
    max_pixels: int
    batch_size: int | None
    """Images in one forward pass; None for what suits the device."""
    threads: int
    """For decoding, and for the model where it has no GPU."""
    device: str
    """"cpu" or "cuda", as torch names it."""
    runtime: str = TORCH
    """What runs YOLOX: torch, or onnxruntime on a CPU."""
    full_decode: bool = False
    """Whether YOLOX decodes large JPEGs in full, where a part of their size fills the canvas."""
    truncated: str = FAIL
    """What becomes of a JPEG that was cut short: YOLOX fails, or labels the rows that are there."""


@dataclass(frozen=True)
class LabelledImage:
    """What was found in one image."""

    width: int
    height: int
    """Of the original image after EXIF orientation, in pixels."""
    boxes_xyxy: npt.NDArray[np.float32]
    """(N, 4) pixels of the original image. What reaches beyond it is clipped by whoever asked."""
    scores: npt.NDArray[np.float32]
    """(N,) in any order; the higher, the surer."""
    class_ids: npt.NDArray[np.int64]
    """(N,) indices into the detector's class_names."""
    decoded_share: float | None = None
    """Of the photo's pixels, those that its file had; None for all of them, or if not known."""

    def box_columns(self) -> Mapping[str, npt.NDArray[np.number]]:
        """(N,) each, by the names that the table of detections has for them."""
        corners = np.asarray(self.boxes_xyxy).T
        return {
            "class_id": np.asarray(self.class_ids),
            "score": np.asarray(self.scores),
            **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)),
        }


class ModelFailedError(Exception):
    """A model cannot look at some images. Where it has a process of its own, that is ended over
    it, as a crash would end it: another may be well, and the image at fault is found."""


class ImageDetector(Protocol):
    """Any class like this one can label an archive, named as "package.module:Class".

    An object of it lives in a process of its own, which is forked after the class's module was
    imported: leave threads and the GPU alone until the constructor. What kills that process, a
    crash or memory running out, costs the image at fault one row; an exception stops the run.
    """

    def __init__(self, checkpoint: bytes, settings: DetectorSettings) -> None:
        """Load the model.

        Args:
            checkpoint: the bytes of the file that was given as the run's checkpoint.
            settings: of these, heed what applies to your model; `threads` and `device` are the
                process's share of the machine.
        """

    @property
    def class_names(self) -> Sequence[str]:
        """Index = class_id; an attribute will do."""

    def __call__(self, bodies: Sequence[bytes]) -> Sequence[LabelledImage | ImageError]:
        """What is in each image, or why that cannot be known.

        Args:
            bodies: the bytes of some hundred image files, of whatever format and damage the
                archive holds.

        Returns:
            One answer for each, in the order given. An ImageError is returned, not raised: it
            becomes the image's row.
        """


class ReadAheadDetector(ImageDetector, Protocol):
    """A detector that decodes some images while its model looks at those before.

    Where it lives in a process of its own, `detect(prepare(bodies))` stands for a call.
    """

    def prepare(self, bodies: Sequence[bytes]) -> Any:
        """Begin with what needs no model, and return at once. Called from a thread of its own."""

    def detect(self, prepared: Any) -> Iterable[LabelledImage | ImageError]:
        """The answers, one for each of the images that were prepared, in their order."""


def load_detector_class(name: str) -> type[ImageDetector]:
    """The class named "package.module:Class", or "yolox" for ours.

    Raises:
        InputError: there is none of that name, or its objects cannot be called.
    """
    module_name, _, class_name = _CLASSES.get(name, name).partition(":")
    if not (module_name and class_name):
        raise InputError(f"detector={name!r}: must be {YOLOX} or package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module can raise anything while it is imported
        raise InputError(
            f"detector={name!r}: importing {module_name} fails with {type(error).__name__}: "
            f"{error}: it must be installed, or lie in the folder that the job was started from"
        ) from error
    found: Any = getattr(module, class_name, None)
    if not isinstance(found, type) or not any("__call__" in vars(base) for base in found.__mro__):
        raise InputError(
            f"detector={name!r}: {module_name} has no class {class_name} whose objects can be "
            "called: give one that keeps to pipelines.detectors.ImageDetector"
        )
    return found

"""From a checkpoint to an ONNX file that computes what torch computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor

from pipelines.detectors.runtimes.onnx_file import METADATA, OnnxFacts
from pipelines.detectors.runtimes.ort import open_session
from pipelines.errors import InputError
from pipelines.photos import Pixels
from yolox_core import (
    ONNX_INPUT,
    Checkpoint,
    OnnxContents,
    decode_outputs,
    export_onnx,
    letterbox,
    to_model_input,
)

TOLERANCE = 1e-4
"""Of probabilities; of boxes in shares of the canvas, or of themselves where they are larger."""

_CHECKED_SIZE = (160, 224)
"""(height, width) in pixels, of canvases for a file that takes all sizes."""


def export_checkpoint(
    checkpoint: Checkpoint,
    contents: OnnxContents = "raw",
    size: tuple[int, int] | None = None,
    score_threshold: float = 0.01,
    nms_threshold: float = 0.65,
) -> bytes:
    """A checkpoint as an ONNX file, which says of itself what the checkpoint says.

    Contents, size and thresholds are those of `yolox_core.export_onnx`.

    Raises:
        InputError: what the file computes is not what torch computes.
        ValueError: no such contents or size.
    """
    facts = OnnxFacts(
        preset=checkpoint.preset,
        class_names=checkpoint.class_names,
        input_size=size or checkpoint.input_size,
        preprocessing=checkpoint.preprocessing,
        contents=contents,
        weights_sha256=checkpoint.sha256,
        any_size=size is None,
    )
    with _one_thread():
        model = export_onnx(
            checkpoint.model,
            checkpoint.preprocessing,
            contents,
            size,
            score_threshold,
            nms_threshold,
            {METADATA: facts.to_json()},
        )
        _check(checkpoint, model, facts)
    if contents == "nms":
        export_checkpoint(checkpoint, "decoded", size)  # to compare all of it but the suppression
    return model


@contextmanager
def _one_thread() -> Iterator[None]:
    """In which torch computes: small tensors gain nothing from more, which wait by spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(checkpoint: Checkpoint, model: bytes, facts: OnnxFacts) -> None:
    """Raises InputError unless the file runs and, without NMS in it, computes what torch does."""
    canvases = _photos_on_canvases(facts)
    outputs = open_session(model).run(None, {ONNX_INPUT: canvases})
    if facts.contents == "nms":
        return
    given = [torch.from_numpy(output) for output in outputs]
    found = decode_outputs(given) if facts.contents == "raw" else given[0]
    with torch.inference_mode():
        images = to_model_input(torch.from_numpy(canvases), checkpoint.preprocessing)
        expected = decode_outputs(checkpoint.model(images))
    if not _agree(found, expected, max(images.shape[-2:])):
        raise InputError(
            "ONNX Runtime and torch differ over these weights, by more than "
            f"{TOLERANCE:g}: use --runtime torch"
        )


def _agree(found: Tensor, expected: Tensor, side: int) -> bool:
    """Whether (B, A, 5 + C) decoded outputs are the same, NaN and infinity included."""
    # What is larger than the canvas is clipped to it anyway. Weights that have learnt little give
    # such boxes, up to the end of float32, where one runtime says infinity and the other not yet.
    boxes = found[..., :4].clamp(-side, side), expected[..., :4].clamp(-side, side)
    probabilities = found[..., 4:], expected[..., 4:]
    return torch.allclose(
        *boxes, rtol=TOLERANCE, atol=TOLERANCE * side, equal_nan=True
    ) and torch.allclose(*probabilities, rtol=0, atol=TOLERANCE, equal_nan=True)


def _photos_on_canvases(facts: OnnxFacts) -> Pixels:
    """(2, H, W, 3) uint8: soft patches of colour, and noise, beside their padding."""
    rng = np.random.default_rng(0)
    size = _CHECKED_SIZE if facts.any_size else facts.input_size
    patches = cv2.resize(rng.integers(0, 256, (9, 13, 3), np.uint8), (400, 240))
    photos = [patches.astype(np.uint8), rng.integers(0, 256, patches.shape, np.uint8)]
    return np.stack([letterbox(photo, size, facts.preprocessing)[0] for photo in photos])

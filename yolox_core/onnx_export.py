"""A detector as an ONNX graph: uint8 canvases in; raw outputs, boxes or detections out.

BatchNorm is folded into the convolutions, and what `to_model_input` does is part of the graph.
"""

import io
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import onnx
import torch
from torch import Tensor, nn

from yolox_core.anchors import decode_outputs
from yolox_core.boxes import cxcywh_to_xyxy
from yolox_core.config import STRIDES, check_input_size
from yolox_core.letterbox import Convention, to_model_input
from yolox_core.yolox import YOLOX, fuse_conv_bn

OnnxContents = Literal["raw", "decoded", "nms"]

ONNX_OPSET = 17
ONNX_INPUT = "canvases"

_MOST_OF_A_CLASS = 1000
"""Detections of one class on one image."""
_TRACED_SIZE = (64, 96)
"""Any will do where the graph takes all sizes."""

_Shape = list[int | str]


def export_onnx(
    model: YOLOX,
    preprocessing: Convention,
    contents: OnnxContents = "raw",
    size: tuple[int, int] | None = None,
    score_threshold: float = 0.01,
    nms_threshold: float = 0.65,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The model as an ONNX file.

    Its input is `canvases`, (batch, height, width, 3) uint8 BGR, letterboxed. Its outputs, with
    points = height x width x (1/8² + 1/16² + 1/32²), boxes in letterboxed pixels:

    * raw: `raw_8`, `raw_16`, `raw_32`, (batch, 5 + classes, height / 8, width / 8) float32 and so
      on, what `YOLOX` gives: 4 box numbers, objectness, classes, before sigmoid;
    * decoded: `decoded`, (batch, points, 5 + classes) float32, what `decode_outputs` gives: cxcywh,
      probabilities of an object and of each class;
    * nms: `boxes_xyxy` (detections, 4) float32, `scores` (detections,) float32, `class_ids` and
      `image_ids` (detections,) int64, of all images together, by image, class and falling score.

    Args:
        model: not fused; not changed.
        preprocessing: what it was trained with.
        size: (height, width) of the only canvases that it is to take. Without it: any multiples of
            32.
        score_threshold: with nms, scores at or above it are kept.
        nms_threshold: with nms, of two boxes of one class with a larger IoU the better one stays.
        metadata: goes into the file as its `metadata_props`.

    Raises:
        ValueError: there are no such contents, or the size is not of multiples of 32.
    """
    if contents not in get_args(OnnxContents):
        raise ValueError(f"contents={contents!r}: must be {', '.join(get_args(OnnxContents))}")
    check_input_size(*(size or _TRACED_SIZE))
    shapes = _shapes(contents, model.config.num_classes, size)
    graph: nn.Module = _Raw(fuse_conv_bn(model).cpu().float(), preprocessing)
    if contents != "raw":
        graph = _Decoded(graph)
    if contents == "nms":
        graph = _Suppressed(graph, score_threshold, nms_threshold)
    exported = onnx.load_model_from_string(_traced(graph.eval(), list(shapes), size))
    _declare(exported, shapes)
    onnx.helper.set_model_props(exported, dict(metadata or {}))
    content: bytes = exported.SerializeToString()
    return content


class _Raw(nn.Module):
    def __init__(self, model: YOLOX, preprocessing: Convention) -> None:
        super().__init__()
        self._model, self._preprocessing = model, preprocessing

    def forward(self, canvases: Tensor) -> tuple[Tensor, ...]:
        images = to_model_input(canvases, self._preprocessing)
        # Not model(images), whose check of the size would be that of the traced one.
        return tuple(self._model.head(self._model.backbone(images)))


class _Decoded(nn.Module):
    def __init__(self, raw: nn.Module) -> None:
        super().__init__()
        self._raw = raw

    def forward(self, canvases: Tensor) -> Tensor:
        return decode_outputs(self._raw(canvases))


class _Suppressed(nn.Module):
    def __init__(self, decoded: nn.Module, score_threshold: float, nms_threshold: float) -> None:
        super().__init__()
        self._decoded = decoded
        self._score_threshold, self._nms_threshold = score_threshold, nms_threshold

    def forward(self, canvases: Tensor) -> tuple[Tensor, ...]:
        decoded = self._decoded(canvases)  # (B, A, 5 + C)
        boxes = cxcywh_to_xyxy(decoded[..., :4])
        class_scores, class_ids = decoded[..., 5:].max(dim=-1)
        scores = decoded[..., 4] * class_scores  # (B, A)
        passed = (scores >= self._score_threshold) & (boxes.abs().amax(dim=-1) < torch.inf)
        scores = torch.where(passed, scores, -1.0)
        # An anchor point gives a detection of its best class alone.
        classes = torch.arange(decoded.shape[-1] - 5)[:, None]  # (C, 1)
        of_class = torch.where(class_ids[:, None] == classes, scores[:, None], -1.0)  # (B, C, A)
        image_ids, kept_classes, points = _nms(boxes, of_class, self._nms_threshold)
        return boxes[image_ids, points], scores[image_ids, points], kept_classes, image_ids


def _nms(boxes_xyxy: Tensor, scores: Tensor, threshold: float) -> tuple[Tensor, ...]:
    """Image, class and anchor point, (K,) int64 each, of what stays of (B, A, 4), (B, C, A)."""
    most = torch.tensor([_MOST_OF_A_CLASS])
    # It drops what is not above a score: all that has passed is above this one.
    limits = torch.tensor([threshold]), torch.tensor([-0.5])
    selected: Tensor = _NonMaxSuppression.apply(boxes_xyxy, scores, most, *limits)
    return selected.unbind(dim=1)


class _NonMaxSuppression(torch.autograd.Function):
    """The operator of ONNX, which torch has no word for."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, *others: Tensor) -> Tensor:
        """Of the right type and rank, which is all that tracing looks at."""
        return boxes.new_zeros((1, 3), dtype=torch.int64)

    @staticmethod
    def symbolic(graph: Any, *inputs: Any) -> Any:
        return graph.op("NonMaxSuppression", *inputs)


def _traced(graph: nn.Module, outputs: list[str], size: tuple[int, int] | None) -> bytes:
    canvases = torch.zeros((2, *(size or _TRACED_SIZE), 3), dtype=torch.uint8)
    file: Any = io.BytesIO()  # of which the new exporter's types know nothing
    with warnings.catch_warnings(), torch.inference_mode():
        # Not the new exporter: it took 20 to 80 times as long for the same operators.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (canvases,),
            file,
            dynamo=False,
            opset_version=ONNX_OPSET,
            input_names=[ONNX_INPUT],
            output_names=outputs,
            dynamic_axes={
                ONNX_INPUT: {0: "batch"} if size else {0: "batch", 1: "height", 2: "width"}
            },
        )
    return bytes(file.getbuffer())


def _shapes(
    contents: OnnxContents, num_classes: int, size: tuple[int, int] | None
) -> dict[str, _Shape]:
    """Of each output; an axis of any length has a name instead."""
    if contents == "nms":
        found: _Shape = ["detections"]
        return {
            "boxes_xyxy": [*found, 4],
            "scores": found,
            "class_ids": found,
            "image_ids": found,
        }
    if contents == "decoded":
        points = sum(size[0] // s * (size[1] // s) for s in STRIDES) if size else "points"
        return {"decoded": ["batch", points, 5 + num_classes]}
    return {f"raw_{s}": ["batch", 5 + num_classes, *_cells(size, s)] for s in STRIDES}


def _cells(size: tuple[int, int] | None, stride: int) -> _Shape:
    if size is None:
        return [f"height / {stride}", f"width / {stride}"]
    return [size[0] // stride, size[1] // stride]


def _declare(exported: onnx.ModelProto, shapes: Mapping[str, _Shape]) -> None:
    """Write the outputs' shapes down, of which the exporter knows only a part."""
    for output in exported.graph.output:
        dims = output.type.tensor_type.shape.dim
        for dim, length in zip(dims, shapes[output.name], strict=True):
            if isinstance(length, str):
                dim.dim_param = length
            else:
                dim.dim_value = length

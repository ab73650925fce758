r"""Write a detector as an ONNX file, to be run here without torch or elsewhere.

yolox-ray export-model --checkpoint s3://bucket/weights/yolox_s.pth --output yolox_s.onnx

The file's one input, in opset 17, is

  canvases    (batch, height, width, 3) uint8, BGR: photos that keep their proportions, scaled onto
              a grey canvas; what the weights want besides is done inside. batch may be any number,
              height and width any multiples of 32, unless --input_size names the only ones.

Boxes are in pixels of the canvas. Its outputs, for C classes, are with --contents

  raw         raw_8, raw_16, raw_32: (batch, 5 + C, height / 8, width / 8) float32, and so on with
              16 and 32. 4 box numbers, objectness and classes of each cell, before sigmoid. These
              `label --checkpoint` takes.
  decoded     decoded: (batch, points, 5 + C) float32, with a point for each cell, finest level
              first, row by row. Centre x, centre y, width, height, and the probabilities of an
              object and of each class.
  nms         boxes_xyxy: (detections, 4) float32; scores: (detections,) float32; class_ids,
              image_ids: (detections,) int64. Those of all images of the batch together, sorted by
              image, class and falling score. A cell gives one detection of its best class, with
              the product of both probabilities as its score; classes do not suppress each other;
              1,000 are kept of a class on an image.

The metadata entry `yolox_core` says, in JSON, what the classes are called and how the canvases are
to be made (preprocessing: official is BGR as it is, top left, on grey 114; seed is centred on 128).
What the file computes is compared with torch before it is written, all but the suppression.
"""

from dataclasses import dataclass
from typing import Literal

from jobs.cli import exit_on_input_error, parse
from pipelines import detectors, storage
from pipelines.errors import InputError
from yolox_core import check_input_size


@dataclass(frozen=True, kw_only=True)
class ExportModelConfig:
    """What is exported."""

    checkpoint: str
    """A local path or an s3:// URI: ours, YOLOX's or that of bubbliiiing's yolox-pytorch."""
    output: str
    """The file to write: a local path or an s3:// URI."""
    contents: Literal["raw", "decoded", "nms"] = "raw"
    """What the file gives, see above."""
    input_size: int | tuple[int, int] | None = None
    """Side, or [height, width], of the only canvases that the file takes, in pixels."""
    score_threshold: float = 0.01
    """With nms: scores at or above it are kept."""
    nms_threshold: float = 0.65
    """With nms: of two boxes of one class that overlap by a larger IoU, the better one stays."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie between 0 and 1")
        if self.canvas_size is not None:
            check_input_size(*self.canvas_size)

    @property
    def canvas_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else size


@exit_on_input_error
def main() -> None:
    config = parse(ExportModelConfig, __doc__)
    weights = storage.read_bytes(config.checkpoint)
    if detectors.is_onnx(weights):
        raise InputError(f"{config.checkpoint} is an ONNX file already: give a checkpoint")
    model = detectors.export_checkpoint(
        detectors.parse_checkpoint(weights, config.checkpoint),
        config.contents,
        config.canvas_size,
        config.score_threshold,
        config.nms_threshold,
    )
    storage.write_bytes(config.output, model)
    print("\n".join(detectors.describe_onnx(model)))
    print(f"{len(model) / 1e6:.1f} MB: {config.output}")


if __name__ == "__main__":
    main()

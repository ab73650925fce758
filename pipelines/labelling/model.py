"""What labels the images: the weights, and the settings that decide the rows."""

import hashlib
from dataclasses import dataclass

from pipelines import storage
from pipelines.detectors import YOLOX, load_detector_class
from pipelines.labelling.config import LabellingConfig
from pipelines.tables import RunSettings, runs

_FOREIGN_INPUT_SIZE = (640, 640)
"""What a detector other than ours is told where nobody says a size."""


@dataclass(frozen=True)
class Model:
    """What labels the images, and the settings that decide their rows."""

    weights: bytes
    settings: RunSettings


def read_model(config: LabellingConfig, weights: bytes) -> Model:
    """The weights as a model of the configured detector.

    Raises:
        InputError: there is no such detector, or these are not weights for it.
    """
    load_detector_class(config.detector)
    preset, preprocessing, input_size = "", "", _FOREIGN_INPUT_SIZE
    if config.detector == YOLOX:
        # Here, since it imports torch: seconds that another detector's run need not wait.
        from pipelines.detectors import parse_checkpoint

        checkpoint = parse_checkpoint(weights, config.checkpoint)
        preset, preprocessing = checkpoint.preset, str(checkpoint.preprocessing)
        input_size = checkpoint.input_size
    settings = RunSettings(
        source=storage.normalise_uri(config.source) if config.source else "",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        preset=preset,
        preprocessing=preprocessing,
        input_size=config.canvas_size or input_size,
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_pixels=config.max_pixels,
        max_image_bytes=config.max_image_bytes,
        detector=config.detector,
        selection=_selection(config),
    )
    return Model(weights, settings)


def _selection(config: LabellingConfig) -> str:
    if config.retry_failed:
        return " ".join(["failed in", config.retry_failed, *sorted(config.retry_kinds)])
    which = {"include": config.include, "exclude": config.exclude}
    words = [f"{name} {' '.join(globs)}" for name, globs in which.items() if globs]
    words += ["all files"] if config.all_files else []
    return ", ".join([runs.NEW if config.incremental else runs.ALL, *words])

"""What labels the images: the weights, and the settings that decide the rows."""

import hashlib
from dataclasses import dataclass, replace

from pipelines import storage
from pipelines.detectors import ONNXRUNTIME, TORCH, YOLOX, is_onnx, load_detector_class
from pipelines.errors import InputError
from pipelines.labelling.config import LabellingConfig
from pipelines.planning import ActorPlan
from pipelines.tables import RunSettings, runs

_FOREIGN_INPUT_SIZE = (640, 640)
"""What a detector other than ours is told where nobody says a size."""


@dataclass(frozen=True)
class Model:
    """What labels the images, and the settings that decide their rows."""

    weights: bytes
    """As they were given, or as the runtime reads them."""
    settings: RunSettings


def read_model(config: LabellingConfig, weights: bytes) -> Model:
    """The weights as a model of the configured detector.

    Raises:
        InputError: there is no such detector, or these are not weights for it.
    """
    load_detector_class(config.detector)
    preset, preprocessing, input_size, runtime = "", "", _FOREIGN_INPUT_SIZE, ""
    if config.detector == YOLOX:
        # Here, since it may import torch: seconds that another detector's run need not wait.
        from pipelines.detectors import read_facts

        facts = read_facts(weights, config.checkpoint, config.canvas_size)
        preset, preprocessing = facts.preset, str(facts.preprocessing)
        input_size, runtime = facts.input_size, _runtime(config, weights)
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
        runtime=runtime,
        full_decode=config.full_decode,
        truncated=config.truncated,
    )
    return Model(weights, settings)


def made_ready(model: Model, plan: ActorPlan) -> Model:
    """With the runtime that it has on these actors, and with the weights as that one reads them.

    Raises:
        InputError: ONNX Runtime was asked for, and differs from torch over these weights.
    """
    runtime = model.settings.runtime
    if runtime == runs.AUTO:
        runtime = TORCH if plan.gpus else ONNXRUNTIME
    weights = model.weights
    if runtime == ONNXRUNTIME and not is_onnx(weights):
        from pipelines.detectors import onnx_of

        try:
            weights = onnx_of(weights)
        except InputError:
            if model.settings.runtime != runs.AUTO:
                raise
            runtime = TORCH  # what the weights were made with
    return Model(weights, replace(model.settings, runtime=runtime))


def _runtime(config: LabellingConfig, weights: bytes) -> str:
    """What runs YOLOX, as far as that is known before there are actors."""
    if not is_onnx(weights):
        return config.runtime
    if config.runtime == TORCH:
        raise InputError(
            f"runtime={TORCH!r}: {config.checkpoint} is an ONNX file, which torch does not run: "
            f"give the checkpoint that it was made of, or --runtime {ONNXRUNTIME}"
        )
    return ONNXRUNTIME


def _selection(config: LabellingConfig) -> str:
    if config.retry_failed:
        return " ".join(["failed in", config.retry_failed, *sorted(config.retry_kinds)])
    which = {"include": config.include, "exclude": config.exclude}
    words = [f"{name} {' '.join(globs)}" for name, globs in which.items() if globs]
    words += ["all files"] if config.all_files else []
    return ", ".join([runs.NEW if config.incremental else runs.ALL, *words])

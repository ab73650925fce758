"""What a run's weights say, and the ONNX file of them, with torch only where they are new."""

import hashlib

from pipelines.detectors.runtimes.cache import keep_onnx, kept_onnx
from pipelines.detectors.runtimes.onnx_file import RAW, OnnxFacts, WeightsFacts, facts_of, is_onnx
from pipelines.detectors.runtimes.ort import open_session
from pipelines.errors import InputError


def read_facts(
    weights: bytes, uri: str, canvas_size: tuple[int, int] | None = None
) -> WeightsFacts:
    """What a checkpoint or an ONNX file says; torch is imported if it was never exported here.

    Args:
        uri: where it lies, for errors.
        canvas_size: (height, width) in pixels, if not the one that it was trained at.

    Raises:
        InputError: it is neither, or an ONNX file that cannot be used.
    """
    if is_onnx(weights):
        return _onnx_facts(weights, uri, canvas_size)
    if kept := kept_onnx(_sha256(weights)):
        return _onnx_facts(kept, uri, canvas_size)
    from pipelines.detectors.checkpoint import parse_checkpoint

    checkpoint = parse_checkpoint(weights, uri)
    return WeightsFacts(
        preset=checkpoint.preset,
        class_names=checkpoint.class_names,
        input_size=checkpoint.input_size,
        preprocessing=checkpoint.preprocessing,
    )


def _onnx_facts(model: bytes, uri: str, canvas_size: tuple[int, int] | None) -> OnnxFacts:
    try:
        facts = facts_of(open_session(model))
    except ValueError as error:
        raise InputError(f"{uri}: {error}") from error
    if facts.contents != RAW:
        raise InputError(
            f"{uri}: its contents are {facts.contents!r}, and thresholds are applied here: give a "
            "file that was exported with --contents raw, or the checkpoint"
        )
    if not facts.any_size and canvas_size not in (None, facts.input_size):
        raise InputError(
            f"{uri}: was exported for canvases of {facts.input_size} only, not of {canvas_size}: "
            "export it without --input_size, or give the checkpoint"
        )
    return facts


def onnx_of(checkpoint: bytes) -> bytes:
    """A checkpoint's ONNX file, from the user's cache; exported, for some seconds, if new.

    Raises:
        InputError: it is not a YOLOX checkpoint, or ONNX Runtime and torch differ over it.
    """
    if kept := kept_onnx(_sha256(checkpoint)):
        return kept
    from pipelines.detectors.checkpoint import parse_checkpoint
    from pipelines.detectors.runtimes.exporting import export_checkpoint

    model = export_checkpoint(parse_checkpoint(checkpoint, "the checkpoint"))
    keep_onnx(_sha256(checkpoint), model)
    return model


def describe_onnx(model: bytes) -> list[str]:
    """The inputs and outputs of an ONNX file, a line each with name, shape and type."""
    session = open_session(model)
    return [
        f"{end.name}: ({', '.join(map(str, end.shape))}) {end.type}"
        for end in (*session.get_inputs(), *session.get_outputs())
    ]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Write a trained detector for others: as ONNX, and as safetensors with a card in JSON."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from pipelines.detectors import onnx_of
from pipelines.errors import InputError
from pipelines.storage import Folder
from yolox_core import load_checkpoint, save_safetensors

WEIGHTS = "model.safetensors"
CARD = "model.json"

ONNX = "best.onnx"


def write_onnx(checkpoint: bytes, folder: Folder) -> str | None:
    """Write best.onnx, which `jobs.label` takes without torch.

    Returns:
        Its URI; None, and a line says why, where ONNX Runtime computes something else.
    """
    try:
        folder.write(ONNX, onnx_of(checkpoint))
    except InputError as error:
        print(f"no {ONNX}: {error}", flush=True)
        return None
    return folder.uri_of(ONNX)


def publish(checkpoint: bytes, folder: Folder, facts: Mapping[str, Any]) -> list[str]:
    """Write model.safetensors, which `jobs.label` takes as it is, and model.json about it.

    The same checkpoint gives the same files. The card comes last: where it is, the weights are.

    Args:
        checkpoint: the file's content, of any kind that `load_checkpoint` reads.
        folder: local or on S3; files of these names are replaced.
        facts: what is known about the model beyond itself, its AP and recipe say; plain JSON
            values, no NaN.

    Returns:
        The URIs of the two files.

    Raises:
        CheckpointError: these are not the bytes of a checkpoint.
        ValueError: the facts cannot be written as JSON; nothing has been written.
    """
    loaded = load_checkpoint(io.BytesIO(checkpoint))
    file = io.BytesIO()
    save_safetensors(
        file,
        loaded.model,
        class_names=loaded.class_names,
        input_size=loaded.input_size,
        preprocessing=loaded.preprocessing,
    )
    card = {
        "preset": loaded.preset,
        "class_names": loaded.class_names,
        "input_size": loaded.input_size,
        "preprocessing": loaded.preprocessing,
        "num_parameters": sum(p.numel() for p in loaded.model.parameters()),
        "weights": WEIGHTS,
        "weights_sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        "checkpoint_sha256": loaded.sha256,
        "facts": dict(facts),
    }
    text = json.dumps(card, indent=2, allow_nan=False) + "\n"
    folder.write(WEIGHTS, file.getvalue())
    folder.write(CARD, text.encode())
    return [folder.uri_of(WEIGHTS), folder.uri_of(CARD)]

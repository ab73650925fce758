"""Checkpoints on disk: ours, YOLOX's and those of bubbliiiing's yolox-pytorch, read as they are.

* ours: metadata beside the weights, see `save_checkpoint` and, for others, `save_safetensors`;
* official: a dict with the weights under "model";
* seed: the bare state dict.

Only tensors and plain values are ever unpickled: a checkpoint cannot run code.
"""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from yolox_core.coco_classes import COCO_CLASSES
from yolox_core.config import PRESETS, ModelConfig, check_input_size, model_config
from yolox_core.letterbox import Convention
from yolox_core.yolox import YOLOX

_FORMAT = "yolox_core/1"
_METADATA = "yolox_core"
"""Key of our metadata, one JSON text, in the header of a safetensors file."""
_SAFETENSORS = ".safetensors"
_STEM = "backbone.backbone.stem.conv.conv.weight"
_CLASS_BIAS = "head.cls_preds.0.bias"
_DEPTHWISE = "backbone.backbone.dark2.0.dconv.conv.weight"

# Official training files carry their AP as a NumPy float; it is data like any other number.
_NUMPY_FLOAT: list[Any] = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]


class CheckpointError(ValueError):
    """Names the file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained detector and what is needed to use it."""

    model: YOLOX
    """In eval mode, float32, on the CPU."""
    preset: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    """(height, width) it was trained at, in pixels."""
    preprocessing: Convention
    sha256: str
    """Of the file, in hex."""


def load_checkpoint(source: str | os.PathLike[str] | BinaryIO) -> Checkpoint:
    """Read a checkpoint of any of the three kinds, ours as a torch or as a safetensors file.

    Files of YOLOX and of yolox-pytorch do not say what they were trained on: 80 classes are
    taken for COCO's, others are named class_0, class_1 ...; the input size is 416 for nano and
    tiny, 640 for the rest, as published; the preprocessing is that of whoever writes such files.

    Args:
        source: a path, or a file opened for reading bytes.

    Raises:
        CheckpointError: the file is missing, damaged, or not a YOLOX checkpoint.
    """
    name, content = _read(source)
    read = _read_safetensors if _is_safetensors(name, content) else _unpickle
    stored = read(name, content)
    weights = stored.get("model", stored)
    config = _recognise(name, weights, stored.get("activation", "silu"))
    model = _build(name, config, weights)
    if "format" in stored:
        class_names, input_size, preprocessing = _stored_metadata(name, stored, config)
    else:
        class_names, input_size = _published_metadata(config)
        preprocessing = "official" if "model" in stored else "seed"
    return Checkpoint(
        model=model,
        preset=config.preset,
        class_names=class_names,
        input_size=input_size,
        preprocessing=preprocessing,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def save_checkpoint(
    target: str | os.PathLike[str] | BinaryIO,
    model: YOLOX,
    *,
    class_names: Sequence[str],
    input_size: tuple[int, int],
    preprocessing: Convention,
) -> None:
    """Write what `load_checkpoint` reads; a path is replaced as a whole or not at all.

    Args:
        target: a path, or a file opened for writing bytes.
        model: not fused.
        class_names: one for each of the model's classes.
        input_size: (height, width) in pixels, multiples of 32.
        preprocessing: what the model was trained with.

    Raises:
        ValueError: the metadata does not fit the model.
    """
    stored = _metadata(model.config, class_names, input_size, preprocessing)
    stored["model"] = model.state_dict()
    _write(target, lambda file: torch.save(stored, file))


def save_safetensors(
    target: str | os.PathLike[str] | BinaryIO,
    model: YOLOX,
    *,
    class_names: Sequence[str],
    input_size: tuple[int, int],
    preprocessing: Convention,
) -> None:
    """Write a file to publish: it can hold no code, and `load_checkpoint` needs nothing else.

    The same model gives the same bytes. Arguments and errors are those of `save_checkpoint`.
    """
    metadata = _metadata(model.config, class_names, input_size, preprocessing)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    # In one key, for the library writes several in a random order.
    content = safetensors.torch.save(weights, {_METADATA: json.dumps(metadata)})
    _write(target, lambda file: file.write(content))


def _metadata(
    config: ModelConfig,
    class_names: Sequence[str],
    input_size: tuple[int, int],
    preprocessing: Convention,
) -> dict[str, Any]:
    """What a file of ours holds beside the weights."""
    _check_metadata(config, class_names, input_size, preprocessing)
    return {
        "format": _FORMAT,
        "activation": config.activation,
        "class_names": list(class_names),
        "input_size": list(input_size),
        "preprocessing": preprocessing,
    }


def _write(target: str | os.PathLike[str] | BinaryIO, save: Callable[[BinaryIO], object]) -> None:
    """Save to an open file, or to a path as a whole or not at all."""
    if not isinstance(target, str | os.PathLike):
        save(target)
        return
    path = Path(target)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(source: str | os.PathLike[str] | BinaryIO) -> tuple[str, bytes]:
    """The name for messages, and the content."""
    if not isinstance(source, str | os.PathLike):
        return str(getattr(source, "name", "checkpoint")), source.read()
    try:
        return os.fspath(source), Path(source).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{os.fspath(source)}: {error.strerror}") from error


def _is_safetensors(name: str, content: bytes) -> bool:
    """By the header, JSON after eight bytes of length; by the name where that is damaged."""
    return content[8:9] == b"{" or name.endswith(_SAFETENSORS)


def _read_safetensors(name: str, content: bytes) -> dict[str, Any]:
    """What `_unpickle` gives for a torch file of ours."""
    try:
        weights = safetensors.torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{name}: not a safetensors file, or damaged: {error}") from error
    header_bytes = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + header_bytes]).get("__metadata__", {})
    if _METADATA not in metadata:
        raise CheckpointError(
            f"{name}: a safetensors file without {_METADATA!r} in its metadata, which says what "
            "the weights are for: give one that save_safetensors wrote"
        )
    try:
        stored = dict(json.loads(metadata[_METADATA]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{name}: its metadata is not a JSON object") from error
    return {"format": None} | stored | {"model": weights}


def _unpickle(name: str, content: bytes) -> dict[str, Any]:
    if not content:
        raise CheckpointError(f"{name}: the file is empty")
    try:
        with torch.serialization.safe_globals(_NUMPY_FLOAT):
            stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what torch.load raises depends on which byte is wrong
        raise CheckpointError(
            f"{name}: not a torch file, damaged, or holding more than weights and plain values"
        ) from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{name}: holds a {type(stored).__name__}, not a dict of weights")
    return stored


def _recognise(name: str, weights: object, activation: str) -> ModelConfig:
    """The configuration that the shapes of the weights belong to."""
    if not isinstance(weights, Mapping):
        raise CheckpointError(f'{name}: "model" is a {type(weights).__name__}, not a state dict')
    for key in (_STEM, _CLASS_BIAS):
        if not isinstance(weights.get(key), Tensor) or not weights[key].ndim:
            raise CheckpointError(f"{name}: not the weights of a YOLOX, no tensor {key!r}")
    channels, num_classes = len(weights[_STEM]), len(weights[_CLASS_BIAS])
    for preset in PRESETS:
        try:
            config = model_config(preset, num_classes, activation)
        except ValueError as error:
            raise CheckpointError(f"{name}: {error}") from error
        if int(64 * config.width) == channels and config.depthwise == (_DEPTHWISE in weights):
            return config
    kind = "depthwise" if _DEPTHWISE in weights else "plain"
    raise CheckpointError(
        f"{name}: {channels} stem channels with {kind} convolutions is none of the presets "
        f"{', '.join(PRESETS)}"
    )


def _build(name: str, config: ModelConfig, weights: Mapping[str, Any]) -> YOLOX:
    model = YOLOX(config)
    expected = model.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in weights]
    problems += [f"{key} is unexpected" for key in weights if key not in expected]
    for key in expected.keys() & weights.keys():
        found, shape = weights[key], tuple(expected[key].shape)
        if not isinstance(found, Tensor):
            problems.append(f"{key} is a {type(found).__name__}, not a tensor")
        elif tuple(found.shape) != shape:
            problems.append(f"{key} is {tuple(found.shape)} instead of {shape}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{name}: not the weights of a YOLOX-{config.preset}: {'; '.join(problems[:3])}{more}"
        )
    model.load_state_dict(weights)
    return model.eval()


def _stored_metadata(
    name: str, stored: Mapping[str, Any], config: ModelConfig
) -> tuple[tuple[str, ...], tuple[int, int], Convention]:
    """Class names, input size and preprocessing of a file of ours."""
    if stored["format"] != _FORMAT:
        raise CheckpointError(
            f"{name}: its format is {stored['format']!r}, this version reads {_FORMAT!r}"
        )
    try:
        height, width = stored["input_size"]
        metadata = (tuple(stored["class_names"]), (height, width), stored["preprocessing"])
        _check_metadata(config, *metadata)
    except KeyError as error:
        raise CheckpointError(f"{name}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{name}: {error}") from error
    return metadata


def _published_metadata(config: ModelConfig) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Class names and input size of weights that do not say."""
    class_names = COCO_CLASSES
    if config.num_classes != len(COCO_CLASSES):
        class_names = tuple(f"class_{i}" for i in range(config.num_classes))
    side = 416 if config.preset in ("nano", "tiny") else 640
    return class_names, (side, side)


def _check_metadata(
    config: ModelConfig,
    class_names: Sequence[str],
    input_size: tuple[int, int],
    preprocessing: Convention,
) -> None:
    if len(class_names) != config.num_classes:
        raise ValueError(f"{len(class_names)} class names for {config.num_classes} classes")
    check_input_size(*input_size)
    if preprocessing not in get_args(Convention):
        choices = " or ".join(get_args(Convention))
        raise ValueError(f"preprocessing={preprocessing!r}: must be {choices}")

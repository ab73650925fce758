"""ONNX files of ours: how they are told from others, and what they say about themselves."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from yolox_core import check_input_size

if TYPE_CHECKING:  # whether a file is ONNX is soon told, without what runs it
    from pipelines.detectors.runtimes.ort import Session
    from yolox_core import Convention

METADATA = "yolox_core"
"""Key of our metadata, one JSON text, in the file's `metadata_props`."""
RAW = "raw"
_FORMAT = "yolox_core/onnx/1"


@dataclass(frozen=True, kw_only=True)
class WeightsFacts:
    """What a run needs to know of its weights."""

    preset: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    """(height, width) they were trained at, in pixels; the only one of a file that takes no
    other."""
    preprocessing: "Convention"


@dataclass(frozen=True, kw_only=True)
class OnnxFacts(WeightsFacts):
    """What an ONNX file says about itself."""

    contents: str
    """raw, decoded or nms, as `yolox_core.export_onnx` has them."""
    weights_sha256: str
    """Of the checkpoint that it was made of, in hex."""
    any_size: bool
    """Whether it takes canvases of every size."""

    def to_json(self) -> str:
        return json.dumps({"format": _FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        values: dict[str, Any] = json.loads(text)
        if (found := values.pop("format")) != _FORMAT:
            raise ValueError(f"its format is {found!r}, this version reads {_FORMAT!r}")
        height, width = values.pop("input_size")
        check_input_size(height, width)
        names = tuple(values.pop("class_names"))
        return cls(class_names=names, input_size=(height, width), **values)


def is_onnx(data: bytes) -> bool:
    """Whether a file of weights looks like ONNX.

    A protocol buffer that begins with its version; a safetensors file may begin so too, but goes
    on with JSON after eight bytes.
    """
    return data[:1] == b"\x08" and data[8:9] != b"{"


def facts_of(session: "Session") -> OnnxFacts:
    """What a loaded model says about itself.

    Raises:
        ValueError: it is none of ours.
    """
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    if METADATA not in metadata:
        raise ValueError(
            "it does not say what the weights are for: give one that yolox-ray export-model wrote"
        )
    try:
        return OnnxFacts.from_json(metadata[METADATA])
    except (KeyError, TypeError) as error:
        raise ValueError(f"its metadata is not as it should be: {error}") from error

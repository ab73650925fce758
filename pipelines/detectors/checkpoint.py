"""Checkpoints of YOLOX, from wherever they lie."""

import io

from pipelines import storage
from pipelines.errors import InputError
from yolox_core import Checkpoint, CheckpointError, load_checkpoint


def read_checkpoint(uri: str) -> Checkpoint:
    """The checkpoint that lies there.

    Raises:
        InputError: there is no such file, or it is not a YOLOX checkpoint.
    """
    return parse_checkpoint(storage.read_bytes(uri), uri)


def parse_checkpoint(data: bytes, uri: str) -> Checkpoint:
    """The checkpoint that a file holds; `uri` is for its errors.

    Raises:
        InputError: it is not a YOLOX checkpoint.
    """
    file = io.BytesIO(data)
    file.name = uri
    try:
        return load_checkpoint(file)
    except CheckpointError as error:
        raise InputError(f"{error}: give a YOLOX checkpoint") from error

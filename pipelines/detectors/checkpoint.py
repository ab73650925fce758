"""Read a checkpoint from wherever it lies."""

import io

from pipelines import storage
from pipelines.errors import InputError
from yolox_core import Checkpoint, CheckpointError, check_input_size, load_checkpoint


def read_checkpoint(uri: str) -> tuple[Checkpoint, bytes]:
    """A checkpoint, and the bytes of its file to hand on to other processes.

    Raises:
        InputError: there is no such file, or it is not a YOLOX checkpoint.
    """
    data = storage.read_bytes(uri)
    file = io.BytesIO(data)
    file.name = uri  # so that an error names it
    try:
        return load_checkpoint(file), data
    except CheckpointError as error:
        raise InputError(f"{error}: give a YOLOX checkpoint") from error


def check_canvas(height: int, width: int) -> None:
    """Raises InputError unless the model can be fed canvases of this size, in pixels."""
    try:
        check_input_size(height, width)
    except ValueError as error:
        raise InputError(str(error)) from error
